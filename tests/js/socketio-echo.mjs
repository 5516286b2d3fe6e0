// The stock `socket.io-client` against the example server of `shared/transport`: namespaces, credentials,
// events and acks with binary data, limits, over each transport.
//
//   ENGINE=http://.. node socketio-echo.mjs

import assert from 'node:assert/strict';
import { Socket } from 'engine.io-client';
import { Manager } from 'socket.io-client';
import { Events } from './lib/events.mjs';

const { ENGINE } = process.env;
const MOST_ATTACHMENTS = 10;
const step = (text) => console.log(`ok: ${text}`);
const buffers = (count) => Array.from({ length: count }, (_, n) => Buffer.from([n, 0, 255]));

/** A client of some namespaces over one connection, with all packets it receives kept. */
function open(transports) {
  const manager = new Manager(ENGINE, { transports, forceNew: true, reconnection: false, autoConnect: false });
  const events = new Events();
  manager.on('open', () => {
    manager.engine.on('packet', ({ type, data }) => type === 'message' && events.add('packet', data));
  });
  const enter = async (namespace, auth) => {
    const socket = manager.socket(namespace, { auth });
    socket.onAny((name, ...data) => events.add(`${namespace} ${name}`, data));
    socket.on('connect_error', (error) => events.add(`${namespace} connect_error`, error.message));
    socket.on('disconnect', (reason) => events.add(`${namespace} disconnect`, reason));
    socket.connect();
    return socket;
  };
  return { manager, events, enter };
}

async function enters(transports) {
  const { manager, events, enter } = open(transports);
  for (const [namespace, prefix] of [['/', ''], ['/custom', '/custom,']]) {
    const auth = { token: `for ${namespace}`, nested: [1, { a: null }] };
    const socket = await enter(namespace, auth);
    assert.deepEqual(await events.wait(`${namespace} auth`), [[auth]]);
    const connects = events.of('packet').filter((packet) => typeof packet === 'string' && packet.startsWith(`0${prefix}`));
    assert.equal(connects.at(-1), `0${prefix}{"sid":"${socket.id}"}`);
  }
  await enter('/elsewhere', {});
  assert.deepEqual(await events.wait('/elsewhere connect_error'), ['Invalid namespace']);
  manager._close();
  step(`each namespace is entered with its credentials and told nothing but its id over ${transports}`);
}

async function echoes(transports) {
  const { manager, events, enter } = open(transports);
  const all = [
    [],
    [1, 'two', { three: [null, true, '\u{1F44B}'] }],
    [Buffer.from('bytes')],
    ['between', Buffer.from([0, 1, 254, 255]), { deep: [{ down: Buffer.alloc(0) }] }, 'the end'],
    buffers(MOST_ATTACHMENTS),
  ];
  for (const namespace of ['/', '/custom']) {
    const socket = await enter(namespace);
    await events.wait(`${namespace} auth`);
    for (const args of all) {
      socket.emit('message', ...args);
      const back = await new Promise((resolve) => socket.emit('message-with-ack', ...args, (...back) => resolve(back)));
      assert.deepEqual(back, args);
    }
    assert.deepEqual(await events.wait(`${namespace} message-back`, all.length), all);
  }
  manager._close();
  step(`events and acks come back with their binary data over ${transports}`);
}

async function leaves() {
  const { manager, events, enter } = open(['websocket']);
  const [one, other] = [await enter('/'), await enter('/custom')];
  await events.wait('/ auth');
  await events.wait('/custom auth');
  one.disconnect();
  other.emit('message', 'still there');
  assert.deepEqual(await events.wait('/custom message-back'), [['still there']]);
  manager._close();
  step('who leaves one namespace stays in the other');
}

async function tooMany(transports) {
  const { events, enter } = open(transports);
  const socket = await enter('/');
  await events.wait('/ auth');
  socket.emit('message', ...buffers(MOST_ATTACHMENTS + 1));
  const [reason] = await events.wait('/ disconnect');
  assert.ok(['transport close', 'transport error'].includes(reason), reason);
  assert.deepEqual(events.of('/ message-back'), []);
  step(`more attachments than ${MOST_ATTACHMENTS} end the transport over ${transports}`);
}

async function stranger() {
  const socket = new Socket(ENGINE, { path: '/socket.io', transports: ['websocket'] });
  await new Promise((resolve) => socket.on('close', resolve));
  step('who enters no namespace is closed');
}

for (const transports of [['websocket'], ['polling'], ['polling', 'websocket']]) {
  await enters(transports);
  await echoes(transports);
}
await leaves();
await tooMany(['websocket']);
await tooMany(['polling']);
await stranger();
