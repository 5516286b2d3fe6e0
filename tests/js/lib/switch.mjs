// A TCP relay whose target can be changed, as a load balancer's: to come back to another gateway.

import net from 'node:net';

export class Switch {
  #target;
  #open = new Set();

  static async to(url) {
    const relay = new Switch();
    relay.point(url);
    relay.server = net.createServer((client) => relay.#carry(client));
    await new Promise((resolve) => relay.server.listen(0, '127.0.0.1', resolve));
    relay.url = `http://127.0.0.1:${relay.server.address().port}`;
    return relay;
  }

  /** New connections go there from now on. */
  point(url) {
    const { hostname, port } = new URL(url);
    this.#target = { host: hostname, port: Number(port) };
  }

  #carry(client) {
    const server = net.connect(this.#target);
    for (const socket of [client, server]) {
      this.#open.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        this.#open.delete(socket);
        client.destroy();
        server.destroy();
      });
    }
    client.pipe(server).pipe(client);
  }

  /** Cuts all that is open, as a lost network does. */
  cut() {
    for (const socket of this.#open) socket.destroy();
  }

  close() {
    this.server.close();
    this.cut();
  }
}
