// Bad clients of Socket.IO: each is told why and harms only itself.
//
//   SECRET=.. API=http://.. GATEWAY_A=http://.. node bad-socketio.mjs

import assert from 'node:assert/strict';
import { createHmac, randomUUID } from 'node:crypto';
import WebSocket from 'ws';
import { call, person } from './lib/rest.mjs';
import { StockSocketIo, refusal } from './lib/stock-socketio.mjs';

const { API, GATEWAY_A, SECRET } = process.env;
const step = (text) => console.log(`ok: ${text}`);

function mint(secret, algorithm, claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: algorithm, typ: 'JWT' })}.${part(claims)}`;
  if (algorithm === 'none') return `${signed}.`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

const now = () => Math.floor(Date.now() / 1000);
const claims = (user, lifetime) => ({ sub: user.id, iat: now() + Math.min(lifetime, 0), exp: now() + lifetime });

/** Speaks the protocol by hand; resolves once the server has ended the transport. */
function speak(packets, binary = false) {
  const socket = new WebSocket(`${GATEWAY_A.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`);
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`not ended after ${String(packets).slice(0, 80)}`)), 20_000);
    const received = [];
    socket.on('message', (data) => received.push(String(data)));
    socket.on('open', () => packets.forEach((packet) => socket.send(packet, { binary })));
    socket.on('error', () => {});
    socket.on('close', () => {
      clearTimeout(timer);
      resolve(received);
    });
  });
}

async function badTokens(user) {
  const good = claims(user, 3600);
  const tokens = {
    nonsense: 'nonsense',
    expired: mint(SECRET, 'HS256', claims(user, -1)),
    'another secret': mint('another secret that is long enough', 'HS256', good),
    'alg none': mint(SECRET, 'none', good),
    'nobody': mint(SECRET, 'HS256', { ...good, sub: randomUUID() }),
  };
  for (const [what, token] of Object.entries(tokens)) {
    const told = await refusal(GATEWAY_A, '/chat', { token });
    assert.deepEqual([told.message, told.data.code, told.data.status], ['UNAUTHENTICATED', 'UNAUTHENTICATED', 'REJECTED'], what);
  }
  for (const auth of [{}, { token: 7 }, { token: null }, { token: { a: 1 } }]) {
    assert.equal((await refusal(GATEWAY_A, '/chat', auth)).message, 'UNAUTHENTICATED', JSON.stringify(auth));
  }
  const badDevice = await refusal(GATEWAY_A, '/chat', { token: user.token, deviceId: 5 });
  assert.deepEqual([badDevice.message, badDevice.data.field], ['INVALID_PAYLOAD', 'deviceId']);
  for (const namespace of ['/', '/admin', '/chat2']) {
    assert.equal((await refusal(GATEWAY_A, namespace, { token: user.token })).message, 'Invalid namespace');
  }
}

async function badPackets(user) {
  const connect = `40/chat,${JSON.stringify({ token: user.token })}`;
  const deep = '['.repeat(50) + ']'.repeat(50);
  for (const packets of [
    ['hello'], ['9'], ['40/chat,{'], [`42/chat,["ping"]`], [''],
    [connect, '42/chat,{'], [connect, '42/chat,"ping"'], [connect, '42/chat,[]'], [connect, '42/chat,[7]'],
    [connect, `42/chat,["ping",${deep}]`], [connect, '4x'], [connect, '45-1/chat,["x",{"_placeholder":true,"num":0}]'],
    [connect, `42/chat,["ping","${'x'.repeat(300_000)}"]`],
  ]) {
    await speak(packets);
  }
  await speak([Buffer.from([1, 2, 3])], true);
}

async function badData(client, room) {
  const refused = await client.emit('message.send', { roomId: room, content: '', clientMsgId: 'x' });
  assert.deepEqual([refused.status, refused.code, refused.field, refused.clientMsgId], ['REJECTED', 'INVALID_PAYLOAD', 'content', 'x']);
  for (const data of ['text', 7, [1], null, undefined]) {
    assert.equal((await client.emit('message.send', data)).code, 'INVALID_PAYLOAD', `data ${data}`);
  }
  assert.equal((await client.emit('no.such', {})).code, 'UNKNOWN_EVENT');
  client.socket.emit('no.such', {});
  const [error] = await client.events.wait('error');
  assert.deepEqual([error.status, error.code], ['REJECTED', 'UNKNOWN_EVENT']);
}

async function farewells(user) {
  const tooLarge = await StockSocketIo.connect(GATEWAY_A, user.token);
  tooLarge.socket.emit('ping', 'x'.repeat(300_000));
  const [error] = await tooLarge.events.wait('error');
  assert.equal(error.closeCode, 4413);
  await tooLarge.events.wait('client.disconnect');
  await tooLarge.events.wait('session.ready', 2); // it reconnects by itself
  tooLarge.close();

  const lasting = await StockSocketIo.connect(GATEWAY_A, mint(SECRET, 'HS256', claims(user, 3)));
  const expiring = await StockSocketIo.connect(GATEWAY_A, mint(SECRET, 'HS256', claims(user, 3)));
  const [{ expiresAt }] = await lasting.events.wait('auth.expiring');
  assert(new Date(expiresAt) - new Date() < 4000, expiresAt);
  const refreshed = await lasting.emit('auth.refresh', { token: user.token });
  assert.equal(refreshed.status, 'OK');
  assert(new Date(refreshed.expiresAt) > new Date(expiresAt));
  const [expired] = await expiring.events.wait('error');
  assert.equal(expired.closeCode, 4401);
  assert.deepEqual(await expiring.events.wait('client.disconnect'), ['io server disconnect']);
  expiring.close();
  assert(new Date() >= new Date(expiresAt));
  assert((await lasting.emit('ping', {})).serverTime);
  assert.deepEqual(lasting.events.of('client.disconnect'), []);
  lasting.close();

  const auth = { token: user.token, deviceId: 'phone' };
  const first = await StockSocketIo.connect(GATEWAY_A, user.token, auth);
  const second = await StockSocketIo.connect(GATEWAY_A, user.token, auth);
  const [replaced] = await first.events.wait('error');
  assert.equal(replaced.closeCode, 4409);
  assert.deepEqual(await first.events.wait('client.disconnect'), ['io server disconnect']);
  first.close();
  second.close();
}

async function main() {
  const [user, other] = [await person(API, 'mallory'), await person(API, 'alice')];
  const body = { type: 'group', memberIds: [other.id] };
  const room = (await call('POST', `${API}/api/v1/conversations`, { token: user.token, body })).body.id;
  const bystander = await StockSocketIo.connect(GATEWAY_A, other.token);

  await badTokens(user);
  step('bad tokens and namespaces are refused by connect_error');
  await badPackets(user);
  step('what is not the protocol ends its own transport');
  const client = await StockSocketIo.connect(GATEWAY_A, user.token);
  await badData(client, room);
  step('bad data is refused and the connection stays');
  await farewells(user);
  step('in the place of close codes: an error, then the agreed end');

  const ack = await client.emit('message.send', { roomId: room, content: 'still here', clientMsgId: 'last' });
  assert.equal(ack.status, 'QUEUED');
  await bystander.events.wait('message.delivered');
  assert.deepEqual([bystander.events.of('client.disconnect'), bystander.events.of('error')], [[], []]);
  assert.deepEqual(client.events.of('client.disconnect'), []);
}

main().then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
