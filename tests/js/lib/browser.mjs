// Debian's Chromium, driven from outside as a person would.

import { existsSync } from 'node:fs';
import { chromium } from 'playwright-core';

const PATIENCE_MS = 20_000;
const PLACES = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

export class Browser {
  static async launch() {
    const browser = new Browser();
    browser.program = await chromium.launch({
      executablePath: PLACES.find((place) => place && existsSync(place)),
      // As root, as in a container, Chromium starts only without its sandbox.
      args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking'],
    });
    return browser;
  }

  /** A tab that shares nothing with the others. */
  async tab(url) {
    const context = await this.program.newContext();
    await context.addInitScript(badNetwork);
    context.setDefaultTimeout(PATIENCE_MS);
    const tab = new Tab();
    tab.context = context;
    tab.page = await context.newPage();
    tab.page.on('pageerror', (error) => tab.wrong.push(`${error}`));
    tab.page.on('console', (message) => message.type() === 'error' && tab.wrong.push(message.text()));
    tab.page.on('dialog', (dialog) => dialog.accept());
    await tab.page.goto(url);
    return tab;
  }

  close() {
    return this.program.close();
  }
}

/**
 * Runs in the page, between it and its socket. Frames of the server for which `window.loses(text)` is true are lost
 * without a word; the first `window.refusals` messages sent are refused for a while, as a busy server does.
 */
function badNetwork() {
  const { send } = WebSocket.prototype;
  const { set } = Object.getOwnPropertyDescriptor(WebSocket.prototype, 'onmessage');
  Object.defineProperty(WebSocket.prototype, 'onmessage', {
    set(handler) {
      this.handler = handler;
      set.call(this, (frame) => !window.loses?.(frame.data) && handler(frame));
    },
  });
  WebSocket.prototype.send = function (text) {
    if (!(window.refusals > 0 && text.includes('"message.send"'))) return send.call(this, text);
    window.refusals -= 1;
    const ack = { status: 'REJECTED', code: 'RATE_LIMITED', message: 'too many requests', retryAfterMs: 400 };
    const data = JSON.stringify({ id: JSON.parse(text).id, ack });
    setTimeout(() => this.handler({ data }), 20);
  };
}

class Tab {
  wrong = [];

  fill = (selector, value) => this.page.fill(selector, value);
  click = (selector) => this.page.click(selector);
  hover = (selector) => this.page.hover(selector);
  press = (selector, key) => this.page.press(selector, key);
  visible = (selector) => this.page.waitForSelector(selector, { state: 'visible' });
  hidden = (selector) => this.page.waitForSelector(selector, { state: 'hidden' });
  absent = (selector) => this.page.waitForSelector(selector, { state: 'detached' });
  evaluate = (script) => this.page.evaluate(script);
  reload = () => this.page.reload();
  focus = (selector) => this.page.focus(selector);
  key = (name) => this.page.keyboard.press(name);
  value = (selector) => this.page.inputValue(selector);
  close = () => this.context.close();

  /** Answers calls to such an address instead of the server, with nothing but a status. */
  async answers(pattern, status) {
    await this.page.route(pattern, (route) => route.fulfill({ status }));
    return () => this.page.unroute(pattern);
  }

  text(selector) {
    return this.page.textContent(selector);
  }

  resize(width, height) {
    return this.page.setViewportSize({ width, height });
  }

  /** True if the page is not wider than the screen. */
  fits() {
    return this.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
  }

  /** Waits until the texts of these elements are exactly these. */
  async lists(selector, wanted) {
    const all = () => this.page.$$eval(selector, (found) => found.map((element) => element.textContent));
    await this.#until(async () => JSON.stringify(await all()) === JSON.stringify(wanted), async () => `${selector}: ${await all()} instead of ${wanted}`);
  }

  /** Waits until the first such element's text is exactly this. */
  async reads(selector, wanted) {
    const first = () => this.page.locator(selector).first().textContent();
    await this.#until(async () => (await first()) === wanted, async () => `${selector}: ${await first()} instead of ${wanted}`);
  }

  async matches(selector, pattern) {
    const first = () => this.page.locator(selector).first().textContent();
    await this.#until(async () => pattern.test(await first()), async () => `${selector}: ${await first()} instead of ${pattern}`);
  }

  /** Errors of the page's scripts and of the console, but for what a server that is away or says no explains. */
  problems() {
    return this.wrong.filter((text) => !/WebSocket connection to|Failed to load resource|ERR_CONNECTION/.test(text));
  }

  async #errors() {
    const told = await this.page.$$eval('.error, #notice, #connection-text', (found) => found.map((element) => element.textContent));
    return told.filter(Boolean).join(' / ');
  }

  async #until(holds, complaint) {
    const end = Date.now() + PATIENCE_MS;
    while (!(await holds())) {
      if (Date.now() > end) throw new Error(`${await complaint()}; the page says: ${await this.#errors()}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}
