// The stock `engine.io-client` against the example server of `shared/transport`: each transport, the
// upgrade, binary data, limits, the end of a session.
//
//   ENGINE=http://.. node engine-echo.mjs

import assert from 'node:assert/strict';
import { Socket } from 'engine.io-client';

const { ENGINE } = process.env;
const step = (text) => console.log(`ok: ${text}`);
const upTo = (count) => Array.from({ length: count }, (_, index) => index);

function open(options) {
  const socket = new Socket(ENGINE, { path: '/engine.io', ...options });
  socket.binaryType = 'arraybuffer';
  const echoes = [];
  let wake = () => {};
  socket.on('message', (data) => {
    echoes.push(typeof data === 'string' ? data : [...new Uint8Array(data)]);
    wake();
  });
  const closed = new Promise((resolve) => socket.on('close', resolve));
  const opened = new Promise((resolve, reject) => {
    socket.on('open', resolve);
    socket.on('error', reject);
  });
  const until = async (count) => {
    const timer = setTimeout(() => { throw new Error(`${echoes.length} of ${count} echoes`); }, 20_000);
    while (echoes.length < count) await new Promise((resolve) => { wake = resolve; });
    clearTimeout(timer);
    return echoes;
  };
  return { socket, opened, closed, until };
}

/** Texts and bytes in turn; the second half once the client has gone over, if it does. */
async function talk(transports, goesOver) {
  const { socket, opened, closed, until } = open({ transports });
  const over = new Promise((resolve) => socket.on('upgrade', resolve));
  await opened;
  const messages = upTo(200).map((n) => (n % 3 === 0 ? [n % 256, 0, 255] : `text ${n} \u{1F44B}`));
  const say = (message) => socket.send(typeof message === 'string' ? message : Uint8Array.from(message));
  messages.slice(0, 100).forEach(say);
  if (goesOver) await over;
  messages.slice(100).forEach(say);
  assert.deepEqual(await until(200), messages);
  assert.equal(socket.transport.name, transports.at(-1));
  socket.close();
  await closed;
  step(`200 messages come back in order over ${transports}`);
}

async function large(transports) {
  const { socket, opened, closed, until } = open({ transports });
  await opened;
  const most = 'x'.repeat(999_000);
  socket.send(most);
  assert.equal((await until(1))[0].length, most.length);
  socket.send('x'.repeat(1_000_001));
  await closed;
  step(`what is larger than maxPayload ends a session over ${transports}`);
}

async function lives() {
  const { socket, opened, closed, until } = open({ transports: ['polling'] });
  await opened;
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  socket.send('still there');
  assert.deepEqual(await until(1), ['still there']);
  socket.close();
  await closed;
  step('pings keep a session alive');
}

await talk(['websocket'], false);
await talk(['polling'], false);
await talk(['polling', 'websocket'], true);
await large(['websocket']);
await large(['polling']);
await lives();
