// `socket.io-client` as anybody would use it, a room to talk in, and what was heard there.

import assert from 'node:assert/strict';
import { io } from 'socket.io-client';
import { Events } from './events.mjs';
import { call } from './rest.mjs';

export const upTo = (count, from = 1) => Array.from({ length: count }, (_, index) => from + index);
export const seqs = (events) => events.of('message.delivered').map((message) => message.seq);
export const transport = (client) => client.socket.io.engine.transport.name;

/** A client with all it receives kept; without options it has the token and nothing else. */
export async function connect(url, token, options) {
  const events = new Events();
  const auth = { auth: { token } };
  const socket = io(url + '/chat', options ? { ...auth, forceNew: true, ...options } : auth);
  socket.onAny((name, data) => events.add(name, data));
  socket.on('connect', () => events.add('client.connect', { id: socket.id, recovered: socket.recovered }));
  socket.on('connect_error', (error) => events.add('connect_error', { message: error.message, data: error.data }));
  socket.on('disconnect', (reason) => events.add('client.disconnect', reason));
  await events.wait('session.ready');
  await events.wait('client.connect');
  return { socket, events, emit: (name, data) => socket.timeout(10_000).emitWithAck(name, data) };
}

/** Waits until a client that polls first has gone over. */
export async function upgraded(client) {
  if (transport(client) === 'websocket') return;
  await new Promise((resolve) => client.socket.io.engine.once('upgrade', resolve));
}

export async function group(api, owner, others) {
  const body = { type: 'group', memberIds: others.map((other) => other.id) };
  const room = await call('POST', `${api}/api/v1/conversations`, { token: owner.token, body });
  assert.equal(room.status, 201, JSON.stringify(room.body));
  return room.body.id;
}

export async function say(client, roomId, numbers) {
  for (const number of numbers) {
    const ack = await client.emit('message.send', { roomId, content: `message ${number}`, clientMsgId: `m-${number}` });
    assert.equal(ack.status, 'QUEUED', JSON.stringify(ack));
  }
}
