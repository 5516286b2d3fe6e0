// What a client received, and waiting for more of it.

const PATIENCE_MS = 20_000;

export class Events {
  #all = [];
  #waiting = new Set();

  add(name, data) {
    this.#all.push({ name, data });
    for (const look of [...this.#waiting]) look();
  }

  of(name) {
    return this.#all.filter((event) => event.name === name).map((event) => event.data);
  }

  /** Waits until `count` events of that name that fit are there; returns them in the order they came. */
  async wait(name, count = 1, fits = () => true) {
    const found = () => this.of(name).filter(fits);
    if (found().length < count) {
      await new Promise((resolve, reject) => {
        const give_up = () => {
          this.#waiting.delete(look);
          reject(new Error(`${found().length} of ${count} ${name}; received: ${this.#all.map((event) => event.name)}`));
        };
        const timer = setTimeout(give_up, PATIENCE_MS);
        const look = () => {
          if (found().length < count) return;
          clearTimeout(timer);
          this.#waiting.delete(look);
          resolve();
        };
        this.#waiting.add(look);
      });
    }
    return found();
  }
}
