// Two people in two tabs of a real browser, on the page that the all-in-one serves.
//
//   GATEWAY_A=http://.. node page.mjs
//
// When a line `kill the server` is printed, whoever runs this kills it, starts it again, and says so by a
// line on standard input after each: `killed`, `started`.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline';
import { Browser } from './lib/browser.mjs';

const PAGE = process.env.GATEWAY_A;
const NASTY = '<img src=x onerror="window.hacked = true"><script>window.hacked = true</script>';
const PASSWORD = 'correct horse battery';
const step = (text) => console.log(`ok: ${text}`);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Fills in the form of the first screen. */
async function signUp(tab, firstName, email) {
  await tab.fill('[name=firstName]', firstName);
  await tab.fill('[name=lastName]', 'Test');
  await tab.fill('[name=email]', email);
  await tab.fill('#account [name=password]', PASSWORD);
  await tab.click('#account-submit');
}

async function person(browser, firstName) {
  const tab = await browser.tab(PAGE);
  const email = `${firstName.toLowerCase()}-${randomUUID()}@example.org`;
  await signUp(tab, firstName, email);
  await tab.reads('#connection-text', 'Connected');
  return { tab, email, id: await tab.text('#my-id') };
}

async function say(tab, content) {
  await tab.fill('#text', content);
  await tab.press('#text', 'Enter');
}

/** Waits until these are the messages of the room, in this order. */
const sees = (tab, contents) => tab.lists('#list .content', contents);

async function refusalsAreShown(browser, { email }) {
  const tab = await browser.tab(PAGE);
  await signUp(tab, 'Twin', email);
  await tab.matches('#account-error', /already/i);
  await tab.click('#tab-login');
  await tab.fill('[name=email]', email);
  await tab.fill('#account [name=password]', 'not the password');
  await tab.click('#account-submit');
  await tab.matches('#account-error', /password/i);
  await tab.fill('#account [name=password]', PASSWORD);
  await tab.click('#account-submit');
  await tab.reads('#connection-text', 'Connected');
  await tab.close();
  step('a taken e-mail and a wrong password are told in the form; the right one lets in');
}

async function talk(ann, bob) {
  await ann.tab.click('#new-room');
  await ann.tab.fill('#room-form [name=title]', NASTY);
  await ann.tab.fill('#room-form [name=memberIds]', bob.id);
  await ann.tab.click('#room-form [type=submit]');
  await ann.tab.reads('#room-title', NASTY);
  await bob.tab.reads('#rooms .name', NASTY);
  step('a new room appears in the other tab by itself; its title is text, whatever it says');

  await say(ann.tab, `hello ${NASTY}`);
  await bob.tab.reads('#rooms .badge', '1');
  await bob.tab.click('#rooms button');
  await sees(bob.tab, [`hello ${NASTY}`]);
  await ann.tab.visible('.ticks.seen');
  await bob.tab.fill('#text', 'hello you');
  await ann.tab.matches('#typing', /is typing/);
  await bob.tab.press('#text', 'Enter');
  await sees(ann.tab, [`hello ${NASTY}`, 'hello you']);
  await ann.tab.reads('#typing', '');
  step('each sees live what the other writes, that it was read, and who is typing');

  await ann.tab.hover('#list .own .bubble');
  await ann.tab.click('#list .own .tools button:has-text("Edit")');
  await ann.tab.fill('#text', 'hello again');
  await ann.tab.press('#text', 'Enter');
  await sees(bob.tab, ['hello again', 'hello you']);
  await bob.tab.hover('#list .own .bubble');
  await bob.tab.click('#list .own .tools button:has-text("Delete")');
  await sees(ann.tab, ['hello again']);
  await ann.tab.reads('#list em', 'Taken back');
  step('an edited message changes and a deleted one goes, in both tabs');
}

async function outage(ann, bob) {
  console.log('kill the server');
  assert.equal((await lines.next()).value, 'killed');
  await ann.tab.matches('#connection-text', /Reconnecting|Connecting/);
  await say(ann.tab, 'written while the server was away');
  await ann.tab.matches('#list .pending .foot', /sending/);
  assert.equal((await lines.next()).value, 'started');
  for (const { tab } of [ann, bob]) {
    await tab.reads('#connection-text', 'Connected');
    await sees(tab, ['hello again', 'written while the server was away']);
  }
  await ann.tab.absent('#list .pending, #list .queued, #list .failed');
  step('both come back by themselves, and what was written meanwhile is there once');
}

async function reload(ann) {
  await ann.tab.reload();
  await ann.tab.reads('#connection-text', 'Connected');
  await ann.tab.click('#rooms button');
  await sees(ann.tab, ['hello again', 'written while the server was away']);
  step('a reloaded tab is still logged in and shows the same');
}

async function phone(bob) {
  await bob.tab.resize(360, 640);
  await bob.tab.visible('#composer');
  assert.ok(await bob.tab.fits(), 'nothing is cut off in an open room on a phone');
  await bob.tab.click('#back');
  await bob.tab.visible('#rooms');
  await bob.tab.hidden('#composer');
  assert.ok(await bob.tab.fits(), 'nothing is cut off in the list of rooms on a phone');
  step('on a narrow screen the list and the room take turns');
}

async function logOut(ann) {
  await ann.tab.click('#logout');
  await ann.tab.visible('#welcome');
  await ann.tab.reload();
  await ann.tab.visible('#welcome');
  step('logged out is logged out');
}

const browser = await Browser.launch();
try {
  const [ann, bob] = [await person(browser, 'Ann'), await person(browser, 'Bob')];
  await refusalsAreShown(browser, ann);
  await talk(ann, bob);
  await outage(ann, bob);
  await reload(ann);
  await phone(bob);
  await logOut(ann);
  for (const { tab } of [ann, bob]) {
    assert.equal(await tab.evaluate('window.hacked'), undefined, 'no script of a message ran');
    assert.deepEqual(tab.problems(), [], 'nothing went wrong in the page');
  }
} finally {
  await browser.close();
}
process.exit(0);
