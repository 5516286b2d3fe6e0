// What becomes of a stock Socket.IO client in its default settings when the gateway that held it is
// killed, and when Redis forgets everything while it is away.
//
//   API=http://.. GATEWAY_A=http://.. GATEWAY_B=http://.. GATEWAY_A_PID=.. REDIS_URL=redis://.. node recovery.mjs

import assert from 'node:assert/strict';
import net from 'node:net';
import { connect, group, say, seqs, upTo, upgraded } from './lib/default-client.mjs';
import { Native } from './lib/native.mjs';
import { person } from './lib/rest.mjs';
import { Switch } from './lib/switch.mjs';

const { API, GATEWAY_A, GATEWAY_B, GATEWAY_A_PID, REDIS_URL } = process.env;
const step = (text) => console.log(`ok: ${text}`);

async function flushRedis() {
  const { hostname, port } = new URL(REDIS_URL);
  const socket = net.connect(Number(port), hostname).end('FLUSHALL\r\nQUIT\r\n');
  let answer = '';
  for await (const part of socket) answer += part;
  assert.equal(answer, '+OK\r\n+OK\r\n');
}

/** One who hears five messages, loses the connection by `trouble`, and comes back by gateway B after five more. */
async function away(ann, speaker, roomId, trouble) {
  const relay = await Switch.to(GATEWAY_A);
  const client = await connect(relay.url, ann.token);
  await upgraded(client);
  const from = client.events.of('session.ready')[0].rooms.find((room) => room.roomId === roomId).lastSeq + 1;
  await say(speaker, roomId, upTo(5, from));
  await client.events.wait('message.delivered', 5);
  relay.point(GATEWAY_B);
  await trouble(relay);
  await client.events.wait('client.disconnect');
  await say(speaker, roomId, upTo(5, from + 5));
  const [before, after] = await client.events.wait('client.connect', 2);
  const end = () => {
    client.socket.close();
    relay.close();
  };
  return { client, from, before, after, end };
}

async function survivesTheDeathOfItsGateway(ann, speaker, roomId) {
  const { client, from, before, after, end } = await away(ann, speaker, roomId, () => process.kill(Number(GATEWAY_A_PID), 'SIGKILL'));
  assert.deepEqual(after, { id: before.id, recovered: true });
  await say(speaker, roomId, upTo(5, from + 10));
  await client.events.wait('message.delivered', 15);
  assert.deepEqual(seqs(client.events), upTo(15, from));
  assert.equal(client.events.of('session.ready').length, 2);
  end();
  step('the gateway that held it is killed: on another one it is the connection it was, with all it missed, once');
}

async function asksForTheRestAfterAWipe(ann, speaker, roomId) {
  const wipe = async (relay) => {
    relay.cut();
    await flushRedis();
  };
  const { client, from, before, after, end } = await away(ann, speaker, roomId, wipe);
  assert.equal(after.recovered, false);
  assert.notEqual(after.id, before.id);
  // Whatever comes from now on comes live, whatever came before by `sync`: nothing by both.
  const heard = seqs(client.events);
  const { lastSeq } = client.events.of('session.ready')[1].rooms.find((room) => room.roomId === roomId);
  const missed = [];
  for (let complete = false; !complete; ) {
    const answer = await client.emit('sync', { rooms: [{ roomId, afterSeq: missed.at(-1) ?? heard[4] }] });
    complete = answer.rooms[0].complete;
    missed.push(...answer.rooms[0].items.map((item) => item.seq));
  }
  assert.deepEqual(missed.filter((seq) => seq <= lastSeq), upTo(lastSeq - from - 4, from + 5));
  await say(speaker, roomId, upTo(5, from + 10));
  await client.events.wait('message.delivered', 5 + (from + 14 - lastSeq));
  assert.deepEqual(seqs(client.events), [...upTo(5, from), ...upTo(from + 14 - lastSeq, lastSeq + 1)]);
  end();
  step('Redis forgets everything: it is a new connection, and `sync` gives the rest, once');
}

const [ann, bob] = [await person(API, 'Ann'), await person(API, 'Bob')];
const roomId = await group(API, ann, [bob]);
const speaker = await Native.connect(GATEWAY_B, bob.token);
await asksForTheRestAfterAWipe(ann, speaker, roomId);
await survivesTheDeathOfItsGateway(ann, speaker, roomId);
speaker.close();
