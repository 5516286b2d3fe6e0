// The stock `socket.io-client`, with all it receives kept.

import { io } from 'socket.io-client';
import { Events } from './events.mjs';

export class StockSocketIo {
  /** Connects over the websocket transport and waits for session.ready. */
  static async connect(gateway, token, auth = { token }) {
    const client = new StockSocketIo();
    client.events = new Events();
    client.socket = io(`${gateway}/chat`, {
      path: '/socket.io/',
      transports: ['websocket'],
      auth,
      forceNew: true,
      reconnectionDelay: 50,
      reconnectionDelayMax: 200,
    });
    client.socket.onAny((event, data) => client.events.add(event, data));
    client.socket.on('connect_error', (error) => client.events.add('connect_error', { message: error.message, data: error.data }));
    client.socket.on('disconnect', (reason) => client.events.add('client.disconnect', reason));
    const refused = client.events.wait('connect_error').then(([error]) => {
      throw new Error(`connect_error: ${JSON.stringify(error)}`);
    });
    refused.catch(() => {});
    [client.ready] = await Promise.race([client.events.wait('session.ready'), refused]);
    return client;
  }

  /** Sends a command and resolves to the ack's one argument. */
  emit(event, data) {
    return this.socket.timeout(10_000).emitWithAck(event, data);
  }

  /** Lets the transport end, as a lost network does; the client reconnects by itself. */
  cut() {
    this.socket.io.engine.close();
  }

  close() {
    this.socket.close();
  }
}

/** What a connection attempt that must be refused was told. */
export function refusal(gateway, namespace, auth) {
  const socket = io(`${gateway}${namespace}`, {
    path: '/socket.io/', transports: ['websocket'], auth, forceNew: true, reconnection: false,
  });
  return new Promise((resolve, reject) => {
    socket.on('connect', () => reject(new Error('was let in')));
    socket.on('connect_error', (error) => {
      socket.close();
      resolve({ message: error.message, data: error.data });
    });
  });
}
