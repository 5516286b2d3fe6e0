// Two people in two tabs of a real browser, on the page that the all-in-one serves.
//
//   GATEWAY_A=http://.. node page.mjs
//
// When the lines `kill the server` and `start the server` are printed, whoever runs this does so and says it by a
// line on standard input: `killed`, `started`.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline';
import { Browser } from './lib/browser.mjs';

const PAGE = process.env.GATEWAY_A;
const NASTY = '<img src=x onerror="window.hacked = true"><script>window.hacked = true</script>';
const LONG = 'w'.repeat(200);
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

async function headersAndLetters(tab) {
  const { headers } = await fetch(PAGE);
  assert.match(headers.get('content-security-policy'), /default-src 'none'.*frame-ancestors 'none'/);
  assert.deepEqual([headers.get('x-frame-options'), headers.get('x-content-type-options')], ['DENY', 'nosniff']);
  const letters = (selector) => tab.evaluate(`[getComputedStyle(document.querySelector('${selector}'))].map((s) => s.color + s.fontSize)[0]`);
  assert.notEqual(await letters('#account input'), await letters('#account label'), 'what is typed is no label');
  step('the page may not be framed, and what is typed does not look like a hint');
}

async function refusalsAreShown(browser, { email }) {
  const tab = await browser.tab(PAGE);
  const withApi = await tab.answers('**/api/v1/auth/register', 404);
  await signUp(tab, 'Twin', email);
  await tab.matches('#account-error', /serves no REST/);
  await withApi();
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

  await ann.tab.fill('#text', 'a draft');
  await ann.tab.focus('#list .own .tools button:has-text("Edit")');
  await ann.tab.key('Enter');
  assert.equal(await ann.tab.value('#text'), `hello ${NASTY}`, 'the keyboard alone reaches Edit');
  await ann.tab.fill('#text', 'hello again');
  await ann.tab.press('#text', 'Enter');
  await ann.tab.hidden('#editing');
  assert.equal(await ann.tab.value('#text'), 'a draft', 'an edit does not take what was begun');
  await ann.tab.fill('#text', '');
  await sees(bob.tab, ['hello again', 'hello you']);
  await bob.tab.hover('#list .own .bubble');
  await bob.tab.click('#list .own .tools button:has-text("Delete")');
  await sees(ann.tab, ['hello again']);
  await ann.tab.reads('#list em', 'Taken back');
  step('an edited message changes and a deleted one goes, in both tabs');
}

async function dialogs(ann) {
  await ann.tab.click('#new-room');
  await ann.tab.fill('#room-form [name=title]', LONG);
  await ann.tab.fill('#room-form [name=memberIds]', 'bob');
  await ann.tab.click('#room-form [type=submit]');
  await ann.tab.matches('#room-form .error', /"bob" is not a user id/);
  await ann.tab.click('#room-form [data-close]');
  await ann.tab.click('#new-room');
  assert.equal(await ann.tab.text('#room-form .error'), '', 'the last error is gone');
  await ann.tab.fill('#room-form [name=memberIds]', randomUUID());
  await ann.tab.click('#room-form [type=submit]');
  await ann.tab.matches('#room-form .error', /Please check the user ids|That is not there/);
  await ann.tab.fill('#room-form [name=memberIds]', '');
  await ann.tab.click('#room-form [type=submit]');
  await ann.tab.reads('#room-title', LONG);
  for (let number = 1; number <= 60; number += 1) await say(ann.tab, `line ${number}`);
  await ann.tab.absent('#list .pending, #list .queued, #list .failed');
  for (const width of [1000, 360]) {
    await ann.tab.resize(width, 700);
    assert.ok(await ann.tab.fits(), `a long title does not break the room at ${width} px`);
  }
  await ann.tab.resize(1280, 720);
  await ann.tab.reload();
  await ann.tab.reads('#room-title', LONG);
  await ann.tab.visible('#older');
  // Cut off on the way: said, and tried again by whoever wants it.
  const whole = await ann.tab.answers('**/messages?*before=*', 200);
  await ann.tab.click('#older');
  await ann.tab.matches('#notice', /cannot be reached/);
  await whole();
  await ann.tab.click('#older');
  await ann.tab.hidden('#older');
  await ann.tab.lists('#list .content', Array.from({ length: 60 }, (_, index) => `line ${index + 1}`));
  assert.ok((await ann.tab.evaluate(`document.getElementById('messages').scrollTop`)) > 0, 'older messages come above the place one reads');
  await ann.tab.click('#rooms button:has-text("<img")');
  step('a dialog says what is wrong in words, a long title is cut short, older messages leave one where one reads');
}

/** Ends in the first room, with the second one not loaded. */
async function reload(ann) {
  await ann.tab.reload();
  await ann.tab.reads('#connection-text', 'Connected');
  await ann.tab.evaluate(`window.loses = (text) => text.includes('"message.delivered"')`);
  await say(ann.tab, 'acked and not seen');
  await ann.tab.visible('#list .queued');
  await ann.tab.reload();
  await ann.tab.reads('#connection-text', 'Connected');
  await sees(ann.tab, ['hello again', 'acked and not seen']);
  await ann.tab.absent('#list .queued');
  step('a reloaded tab is still logged in and in its room; what was acked before is there once');
}

async function badNetwork(ann) {
  await ann.tab.evaluate('window.refusals = 1');
  await say(ann.tab, 'first');
  await say(ann.tab, 'second');
  await sees(ann.tab, ['hello again', 'acked and not seen', 'first', 'second']);
  await ann.tab.absent('#list .pending, #list .queued, #list .failed');
  step('a message that has to wait is not overtaken by the next');
  await ann.tab.evaluate('window.loses = () => true');
  await say(ann.tab, 'into silence');
  await ann.tab.matches('#connection-text', /Reconnecting|Connecting/);
  await ann.tab.evaluate('window.loses = () => false');
  await ann.tab.reads('#connection-text', 'Connected');
  await sees(ann.tab, [...BEFORE, 'into silence']);
  await ann.tab.absent('#list .pending, #list .queued, #list .failed');
  await ann.tab.evaluate(`window.loses = () => true, dispatchEvent(new Event('offline'))`);
  await new Promise((resolve) => setTimeout(resolve, 4000));
  assert.match(await ann.tab.text('#connection-text'), /Reconnecting|Connecting/);
  await ann.tab.evaluate('window.loses = () => false');
  await ann.tab.reads('#connection-text', 'Connected');
  step('a socket that falls silent is replaced, sooner when the browser says that the network is gone');
}

const BEFORE = ['hello again', 'acked and not seen', 'first', 'second'];

async function outage(ann, bob) {
  console.log('kill the server');
  assert.equal((await lines.next()).value, 'killed');
  await ann.tab.matches('#connection-text', /Reconnecting|Connecting/);
  await ann.tab.focus('#list .own .tools button:has-text("Edit")');
  await ann.tab.key('Enter');
  await ann.tab.fill('#text', 'hello at last');
  await ann.tab.press('#text', 'Enter');
  await ann.tab.matches('#notice', /The change is not saved/);
  assert.equal(await ann.tab.value('#text'), 'hello at last', 'the edit is kept');
  await ann.tab.matches('#connection-text', /Reconnecting|Connecting/);
  await ann.tab.click('#cancel-edit');
  await say(ann.tab, 'written while the server was away');
  await ann.tab.matches('#list .pending .foot', /sending/);
  await ann.tab.click(`#rooms button:has-text("${LONG}")`);
  await ann.tab.visible('#unloaded');
  await ann.tab.matches('#connection-text', /in [2-9] s/);
  assert.match(await ann.tab.text('#unloaded'), /could not be loaded/);
  await ann.tab.matches('#connection-text', /in 1 s/);
  await ann.tab.reads('#notice', '');
  console.log('start the server');
  assert.equal((await lines.next()).value, 'started');
  for (const { tab } of [ann, bob]) await tab.reads('#connection-text', 'Connected');
  await ann.tab.hidden('#unloaded');
  await say(ann.tab, 'the other room works');
  await ann.tab.reads('#list li:last-child .content', 'the other room works');
  await ann.tab.click('#rooms button:has-text("<img")');
  for (const { tab } of [ann, bob]) await sees(tab, [...BEFORE, 'into silence', 'written while the server was away']);
  await ann.tab.absent('#list .pending, #list .queued, #list .failed');
  step('both come back by themselves; what was written, edited or opened meanwhile is not lost, and there once');
}

async function phone(bob) {
  await bob.tab.resize(360, 640);
  await bob.tab.visible('#composer');
  await bob.tab.visible('#room-connection');
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
  await headersAndLetters(ann.tab);
  await refusalsAreShown(browser, ann);
  await talk(ann, bob);
  await dialogs(ann);
  await reload(ann);
  await badNetwork(ann);
  await outage(ann, bob);
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
