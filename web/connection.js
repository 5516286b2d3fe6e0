// The socket: logs in with its first frame, matches acks to requests, reconnects by itself.
// It knows no rooms and no messages; what comes in is handed on as (event, data).

import { randomName, refresh, session } from './api.js';

const ACK_LIMIT_MS = 8000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15000;

/** The server's "no", or no answer in time (`code` UNAVAILABLE). */
export class Refused extends Error {
  constructor(refusal) {
    super(refusal.message ?? refusal.code);
    this.code = refusal.code;
    this.retryAfterMs = refusal.retryAfterMs;
  }
}

/** The name of this tab as a device. */
function deviceId() {
  const key = 'chatchit.device';
  if (!sessionStorage.getItem(key)) sessionStorage.setItem(key, `web-${randomName()}`);
  return sessionStorage.getItem(key);
}

/**
 * Emits `state` ({kind: connecting | online | waiting | replaced | over, seconds?}) and every event of the server
 * as `server` ({event, data}).
 */
export class Connection extends EventTarget {
  #socket = null;
  #waiting = new Map();
  #nextId = 1;
  #pauseMs = FIRST_PAUSE_MS;
  #notBeforeMs = 0;
  #timer = 0;
  #wanted = false;

  constructor() {
    super();
    addEventListener('online', () => this.#wanted && !this.#socket && this.open());
  }

  /** Connects now and stays connected. */
  open() {
    this.#wanted = true;
    clearTimeout(this.#timer);
    this.#drop();
    this.#tell({ kind: 'connecting' });
    const socket = new WebSocket(`${location.origin.replace(/^http/, 'ws')}/ws`, 'chatchit.v1.json');
    this.#socket = socket;
    socket.onopen = () => {
      const data = { token: session.get()?.accessToken ?? '', deviceId: deviceId() };
      socket.send(JSON.stringify({ event: 'auth', data }));
    };
    socket.onmessage = (message) => socket === this.#socket && this.#receive(JSON.parse(message.data));
    socket.onclose = (close) => socket === this.#socket && this.#closed(close.code);
  }

  /** Disconnects and stays so. */
  close() {
    this.#wanted = false;
    clearTimeout(this.#timer);
    this.#drop();
  }

  /** Becomes another device after this one was opened elsewhere. */
  takeOver() {
    sessionStorage.removeItem('chatchit.device');
    this.open();
  }

  /** Sends an event; resolves with its ack, rejects with `Refused`. */
  request(event, data) {
    return new Promise((resolve, reject) => {
      if (this.#socket?.readyState !== WebSocket.OPEN) {
        reject(new Refused({ code: 'UNAVAILABLE', message: 'not connected' }));
        return;
      }
      const id = this.#nextId++;
      const late = () => this.#settle(id, { status: 'REJECTED', code: 'UNAVAILABLE', message: 'no answer in time' });
      this.#waiting.set(id, { resolve, reject, timer: setTimeout(late, ACK_LIMIT_MS) });
      this.#socket.send(JSON.stringify({ id, event, data }));
    });
  }

  #receive(frame) {
    if (frame.ack !== undefined) {
      this.#settle(frame.id, frame.ack);
      return;
    }
    const { event, data } = frame;
    if (event === 'session.ready') {
      this.#pauseMs = FIRST_PAUSE_MS;
      this.#tell({ kind: 'online' });
    } else if (event === 'server.draining') {
      this.#notBeforeMs = Date.now() + (data.retryAfterMs ?? 0);
    } else if (event === 'auth.expiring') {
      this.#renew();
    }
    this.dispatchEvent(new CustomEvent('server', { detail: { event, data } }));
  }

  #settle(id, ack) {
    const request = this.#waiting.get(id);
    if (!request) return;
    this.#waiting.delete(id);
    clearTimeout(request.timer);
    if (ack.status === 'REJECTED') request.reject(new Refused(ack));
    else request.resolve(ack);
  }

  async #renew() {
    try {
      if (await refresh()) await this.request('auth.refresh', { token: session.get().accessToken });
    } catch {
      // The socket will be closed at expiry; then the way back in starts anew.
    }
  }

  async #closed(code) {
    this.#drop();
    if (!this.#wanted) return;
    if (code === 4409) {
      this.#wanted = false;
      this.#tell({ kind: 'replaced' });
      return;
    }
    if (code === 4401 || code === 4403) {
      const renewed = await refresh().catch(() => null);
      if (renewed === false) {
        this.#wanted = false;
        this.#tell({ kind: 'over' });
        return;
      }
    }
    const spread = this.#pauseMs * (0.5 + Math.random() / 2);
    const pauseMs = Math.max(spread, this.#notBeforeMs - Date.now());
    this.#pauseMs = Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS);
    this.#tell({ kind: 'waiting', seconds: Math.ceil(pauseMs / 1000) });
    this.#timer = setTimeout(() => this.#wanted && this.open(), pauseMs);
  }

  /** Forgets the socket; whoever waits for an ack learns that none will come. */
  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    for (const id of [...this.#waiting.keys()]) {
      this.#settle(id, { status: 'REJECTED', code: 'UNAVAILABLE', message: 'the connection was lost' });
    }
  }

  #tell(state) {
    this.dispatchEvent(new CustomEvent('state', { detail: state }));
  }
}
