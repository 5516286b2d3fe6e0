// The native protocol over the stock `ws` client.

import WebSocket from 'ws';
import { Events } from './events.mjs';

export class Native {
  #next = 1;
  #acks = new Map();

  /** Connects and waits for session.ready. */
  static async connect(gateway, token) {
    const client = new Native();
    client.events = new Events();
    client.socket = new WebSocket(`${gateway.replace('http', 'ws')}/ws`, 'chatchit.v1.json', {
      headers: { authorization: `Bearer ${token}` },
    });
    client.socket.on('message', (bytes, binary) => client.#take(JSON.parse(bytes), binary));
    client.socket.on('error', (error) => client.events.add('client.error', error));
    client.socket.on('close', (code, reason) => client.events.add('client.close', { code, reason: String(reason) }));
    [client.ready] = await client.events.wait('session.ready');
    return client;
  }

  #take(frame, binary) {
    if (binary) throw new Error('a binary frame in the JSON protocol');
    if (frame.id === undefined) return this.events.add(frame.event, frame.data);
    const settle = this.#acks.get(frame.id);
    if (!settle) throw new Error(`a second or unasked ack: ${JSON.stringify(frame)}`);
    this.#acks.delete(frame.id);
    settle(frame.ack);
  }

  /** Sends a command and resolves to its ack. */
  emit(event, data) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no ack of ${event}`)), 10_000);
      this.#acks.set(id, (ack) => {
        clearTimeout(timer);
        resolve(ack);
      });
      this.socket.send(JSON.stringify({ id, event, data }));
    });
  }

  /** Cuts the connection without a word. */
  cut() {
    this.socket.terminate();
  }

  close() {
    this.socket.close();
  }
}
