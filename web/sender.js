// Sends what lies in the outbox: one message at a time and in order, until each has its ack.

import { connection, state } from './state.js';
import { sentence } from './words.js';
import { drawRoom } from './view.js';

const LATER = ['UNAVAILABLE', 'OVERLOADED', 'RATE_LIMITED'];
const PAUSE_MS = 2000;

let running = false;
let timer = 0;

/** Sends what no ack has come for. One run at a time: a message never overtakes one that has to wait. */
export async function flush() {
  if (running) return;
  running = true;
  clearTimeout(timer);
  try {
    while (await sendNext(state.outbox));
  } finally {
    running = false;
  }
}

/** True if there may be another one to send. */
async function sendNext(outbox) {
  const item = outbox.nextPending();
  if (!item) return false;
  const { roomId, content, clientMsgId } = item;
  let goOn = true;
  try {
    const { messageId } = await connection.request('message.send', { roomId, content, clientMsgId });
    Object.assign(item, { state: 'queued', messageId });
  } catch (error) {
    goOn = !LATER.includes(error.code);
    if (goOn) Object.assign(item, { state: 'failed', reason: sentence(error) });
    else timer = setTimeout(flush, error.retryAfterMs ?? PAUSE_MS);
  }
  // Who logged out meanwhile has left nothing behind.
  if (outbox !== state.outbox) return true;
  outbox.save();
  drawRoom();
  return goOn;
}
