// The socket: logs in with its first frame, matches acks to requests, reconnects by itself.
// It knows no rooms and no messages; what comes in is handed on as (event, data).

import { randomName, refresh, session } from './api.js';

const ACK_LIMIT_MS = 8000;
/** The same when the browser says that the network is gone. */
const OFFLINE_LIMIT_MS = 2000;
/** So often the page asks whether the server is still there. */
const PING_MS = 20000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15000;

/** The server's "no", or no answer in time (`code` UNAVAILABLE). */
export class Refused extends Error {
  constructor(refusal) {
    super(refusal.message ?? refusal.code);
    this.code = refusal.code;
    this.field = refusal.field;
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
 * Emits `state` ({kind: connecting | online | waiting | replaced | over, until?}) and every event of the server as
 * `server` ({event, data}). `until` is when the next attempt begins, by `Date.now()`.
 */
export class Connection extends EventTarget {
  #socket = null;
  #waiting = new Map();
  #nextId = 1;
  #pauseMs = FIRST_PAUSE_MS;
  #notBeforeMs = 0;
  #timer = 0;
  #wanted = false;
  #readyTimer = 0;

  constructor() {
    super();
    addEventListener('online', () => this.#wanted && !this.#socket && this.open());
    // A server on this machine needs no network, so the socket is only asked sooner.
    addEventListener('offline', () => this.#ping(OFFLINE_LIMIT_MS));
    setInterval(() => this.#ping(ACK_LIMIT_MS), PING_MS);
  }

  /** True while the socket is open, whether it works or not. */
  get isOnline() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Connects now and stays connected. */
  open() {
    this.#wanted = true;
    clearTimeout(this.#timer);
    this.#drop();
    this.#tell({ kind: 'connecting' });
    const socket = new WebSocket(`${location.origin.replace(/^http/, 'ws')}/ws`, 'chatchit.v1.json');
    this.#socket = socket;
    this.#readyTimer = setTimeout(() => this.#doubt(socket), ACK_LIMIT_MS);
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
  request(event, data, limitMs = ACK_LIMIT_MS) {
    return new Promise((resolve, reject) => {
      if (!this.isOnline) {
        reject(new Refused({ code: 'UNAVAILABLE', message: 'not connected' }));
        return;
      }
      const id = this.#nextId++;
      const socket = this.#socket;
      this.#waiting.set(id, { resolve, reject, timer: setTimeout(() => this.#doubt(socket), limitMs) });
      socket.send(JSON.stringify({ id, event, data }));
    });
  }

  #receive(frame) {
    if (frame.ack !== undefined) {
      this.#settle(frame.id, frame.ack);
      return;
    }
    const { event, data } = frame;
    if (event === 'session.ready') {
      clearTimeout(this.#readyTimer);
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

  /** A socket without an answer in time may be dead without a word: another one takes its place. */
  #doubt(socket) {
    if (socket === this.#socket) this.#closed(0);
  }

  #ping(limitMs) {
    if (this.isOnline) this.request('ping', {}, limitMs).catch(() => {});
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
    this.#tell({ kind: 'waiting', until: Date.now() + pauseMs });
    this.#timer = setTimeout(() => this.#wanted && this.open(), pauseMs);
  }

  /** Forgets the socket; whoever waits for an ack learns that none will come. */
  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    clearTimeout(this.#readyTimer);
    socket?.close();
    for (const id of [...this.#waiting.keys()]) {
      this.#settle(id, { status: 'REJECTED', code: 'UNAVAILABLE', message: 'the connection was lost' });
    }
  }

  #tell(state) {
    this.dispatchEvent(new CustomEvent('state', { detail: state }));
  }
}
