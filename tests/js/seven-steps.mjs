// The seven steps of the brief with stock clients: handshake, join, emit, validate and ack, publish,
// process, client update; then repetition, outsiders and catching up.
//
//   API=http://.. GATEWAY_A=http://.. GATEWAY_B=http://.. node seven-steps.mjs

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { call, history, person } from './lib/rest.mjs';
import { Native } from './lib/native.mjs';
import { StockSocketIo, refusal } from './lib/stock-socketio.mjs';

const { API, GATEWAY_A, GATEWAY_B } = process.env;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
const upTo = (count, from = 1) => Array.from({ length: count }, (_, index) => from + index);
const step = (text) => console.log(`ok: ${text}`);

async function group(owner, others) {
  const body = { type: 'group', title: 'Seven steps', memberIds: others.map((other) => other.id) };
  const room = await call('POST', `${API}/api/v1/conversations`, { token: owner.token, body });
  assert.equal(room.status, 201, JSON.stringify(room.body));
  assert.equal(room.body.type, 'group');
  assert.equal(room.body.title, 'Seven steps');
  assert.equal(room.body.lastSeq, 0);
  assert.deepEqual(
    room.body.members.map(({ userId, role }) => [userId, role]).sort(),
    [[owner.id, 'owner'], ...others.map((other) => [other.id, 'member'])].sort(),
  );
  return room.body.id;
}

function checkReady(ready, user, room) {
  assert.equal(ready.userId, user.id);
  assert.match(ready.sessionId, UUID);
  assert.ok(ready.deviceId && ready.limits);
  assert.match(ready.serverTime, TIME);
  const here = ready.rooms.find((entry) => entry.roomId === room);
  assert.ok(here, 'the room is among those of session.ready');
  assert.deepEqual(Object.keys(here).sort(), ['lastSeq', 'rev', 'roomId', 'unread']);
}

function checkDelivered(message, { room, seq, sender, content, clientMsgId, messageId }) {
  assert.equal(message.roomId, room);
  assert.equal(message.seq, seq);
  assert.equal(message.senderId, sender);
  assert.equal(message.content, content);
  assert.equal(message.clientMsgId, clientMsgId);
  assert.equal(message.messageId, messageId);
  assert.equal(message.type, 'TEXT');
  assert.match(message.sentAt, TIME);
  assert.match(message.storedAt, TIME);
}

/** `count` messages, the two clients in turn; returns what was sent, in order. */
async function talk(clients, room, from, count) {
  const sent = [];
  for (const number of upTo(count, from)) {
    const { client, user } = clients[number % clients.length];
    const message = { roomId: room, content: `<b>message</b> ${number} 👋`, clientMsgId: `m-${number}` };
    const ack = await client.emit('message.send', message);
    assert.deepEqual(ack, { status: 'QUEUED', clientMsgId: message.clientMsgId, messageId: ack.messageId });
    assert.match(ack.messageId, UUID);
    sent.push({ room, seq: number, sender: user.id, content: message.content, clientMsgId: message.clientMsgId, messageId: ack.messageId });
  }
  return sent;
}

async function outsiderIsRefused(room) {
  const eve = await person(API, 'eve');
  for (const client of [await Native.connect(GATEWAY_B, eve.token), await StockSocketIo.connect(GATEWAY_A, eve.token)]) {
    const send = await client.emit('message.send', { roomId: room, content: 'hello?', clientMsgId: 'e-1' });
    assert.deepEqual([send.status, send.code, send.clientMsgId], ['REJECTED', 'NOT_FOUND', 'e-1']);
    const join = await client.emit('room.join', { roomId: room });
    assert.deepEqual([join.status, join.code], ['REJECTED', 'NOT_FOUND']);
    const sync = await client.emit('sync', { rooms: [{ roomId: room, afterSeq: 0 }] });
    assert.deepEqual(sync, { rooms: [{ roomId: room, code: 'NOT_FOUND' }] });
    assert.deepEqual(client.events.of('message.delivered'), []);
    client.close();
  }
  const read = await call('GET', `${API}/api/v1/conversations/${room}/messages`, { token: eve.token });
  assert.deepEqual([read.status, read.body.code], [404, 'NOT_FOUND']);
  assert.match(read.type, /^application\/problem\+json/);
  const unknown = await call('GET', `${API}/api/v1/conversations/${randomUUID()}/messages`, { token: eve.token });
  assert.deepEqual([unknown.status, unknown.body.code], [404, 'NOT_FOUND'], 'a forbidden room looks like none');
}

async function badTokensAreRefused() {
  const bad = await refusal(GATEWAY_A, '/chat', { token: 'nonsense' });
  assert.deepEqual([bad.message, bad.data.code, bad.data.status], ['UNAUTHENTICATED', 'UNAUTHENTICATED', 'REJECTED']);
  const elsewhere = await refusal(GATEWAY_A, '/elsewhere', { token: 'nonsense' });
  assert.equal(elsewhere.message, 'Invalid namespace');
}

async function catchUp(clients, users, room, sent) {
  const [socketIo, native] = clients;
  native.client.cut();
  await native.client.events.wait('client.close');
  const missed = await talk([socketIo], room, sent.length + 1, 5);
  await socketIo.client.events.wait('message.delivered', 1, (message) => message.seq === 25);
  const back = await Native.connect(GATEWAY_B, users.bob.token);
  assert.equal(back.ready.rooms.find((entry) => entry.roomId === room).lastSeq, 25);
  const answer = await back.emit('sync', { rooms: [{ roomId: room, afterSeq: 20 }] });
  const [synced] = answer.rooms;
  assert.deepEqual(synced.items.map((item) => item.seq), [21, 22, 23, 24, 25]);
  synced.items.forEach((item, index) => checkDelivered(item, missed[index]));
  assert.equal(synced.complete, true);
  assert.equal(synced.lastSeq, 25);
  const rest = await back.emit('sync', { rooms: [{ roomId: room, afterSeq: 25 }] });
  assert.deepEqual([rest.rooms[0].items, rest.rooms[0].complete], [[], true]);

  socketIo.client.cut();
  await socketIo.client.events.wait('session.ready', 2);
  const byRev = await socketIo.client.emit('sync', { rooms: [{ roomId: room, afterRev: synced.rev - 5 }] });
  assert.deepEqual(byRev.rooms[0].items.map((item) => item.event), Array(5).fill('message.delivered'));
  assert.deepEqual(byRev.rooms[0].items.map((item) => item.rev), upTo(5, synced.rev - 4));
  assert.equal(byRev.rooms[0].complete, true);
  return back;
}

async function main() {
  const users = { alice: await person(API, 'alice'), bob: await person(API, 'bob') };
  const room = await group(users.alice, [users.bob]);
  const clients = [
    { client: await StockSocketIo.connect(GATEWAY_A, users.alice.token), user: users.alice },
    { client: await Native.connect(GATEWAY_B, users.bob.token), user: users.bob },
  ];
  for (const { client, user } of clients) checkReady(client.ready, user, room);
  step('handshake with a token, session.ready first');

  for (const { client } of clients) {
    const joined = await client.emit('room.join', { roomId: room });
    assert.deepEqual([joined.status, joined.roomId, joined.lastSeq], ['OK', room, 0]);
  }
  step('join');

  const sent = await talk(clients, room, 1, 20);
  step('emit, validate, ack QUEUED');

  for (const { client } of clients) {
    const seen = await client.events.wait('message.delivered', 20, (message) => message.roomId === room);
    seen.forEach((message, index) => checkDelivered(message, sent[index]));
    assert.deepEqual(seen.map((message) => message.rev), upTo(20, seen[0].rev), 'rev without a gap');
  }
  step('published, processed, both clients updated: seq 1 to 20');

  for (const limit of [200, 7]) {
    const items = await history(API, room, users.bob.token, limit);
    assert.equal(items.length, 20);
    items.forEach((item, index) => checkDelivered(item, sent[index]));
  }
  step('history in order, by one page and by many');

  const again = await clients[1].client.emit('message.send', { roomId: room, content: 'again', clientMsgId: sent[0].clientMsgId });
  assert.deepEqual([again.status, again.messageId], ['QUEUED', sent[0].messageId]);
  const last = await clients[0].client.emit('message.send', { roomId: room, content: 'again', clientMsgId: sent[19].clientMsgId });
  assert.deepEqual([last.status, last.messageId], ['QUEUED', sent[19].messageId]);
  assert.equal((await history(API, room, users.alice.token, 200)).length, 20);
  step('the same clientMsgId is the same message');

  await outsiderIsRefused(room);
  await badTokensAreRefused();
  step('outsiders and bad tokens are refused');

  const back = await catchUp(clients, users, room, sent);
  const all = await history(API, room, users.alice.token, 200);
  assert.deepEqual(all.map((item) => item.seq), upTo(25), 'nothing stood twice');
  assert.deepEqual(all.map((item) => item.content).filter((content) => content === 'again'), []);
  step('after a cut connection, sync returns exactly what was missed');

  back.close();
  clients[0].client.close();
}

main().then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
