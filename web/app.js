// The page: puts what `room.js` knows on the screen and what people do on the wire.
// Whatever others wrote is set as text, never as HTML.

import { ApiError, call, enter, leave, session } from './api.js';
import { Connection } from './connection.js';
import { Outbox, Rooms } from './room.js';

const $ = (id) => document.getElementById(id);
const rooms = new Rooms();
const connection = new Connection();
const presence = new Map();
let outbox = new Outbox();
let current = null;
let editing = null;
let typingSentAt = 0;

const me = () => session.get()?.user;
const short = (id) => id.slice(-6);
const nameOf = (id) => (id === me()?.id ? 'You' : `Guest ${short(id)}`);
const timeOf = (at) => new Date(at).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
const ids = (text) => text.split(/[\s,;]+/).filter(Boolean);

/** An element with a class, text and children. */
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null));
  return element;
}

function button(text, className, onClick) {
  const element = make('button', className, text);
  element.type = 'button';
  element.addEventListener('click', onClick);
  return element;
}

/** A round mark whose colour follows from the id. */
function avatar(id, status) {
  const element = make('span', 'avatar', short(id).slice(0, 2));
  element.style.setProperty('--hue', `${parseInt(short(id), 16) % 360}`);
  if (status) element.append(make('span', `dot ${status}`));
  return element;
}

function titleOf(room) {
  if (room.title) return room.title;
  const others = room.members.filter((member) => member.userId !== me()?.id);
  return others.length ? others.map((member) => nameOf(member.userId)).join(', ') : 'Just you';
}

// ---- drawing

function draw() {
  const user = me();
  $('welcome').hidden = Boolean(user);
  $('chat').hidden = !user;
  if (!user) return;
  $('my-name').textContent = [user.firstName, user.lastName].filter(Boolean).join(' ') || 'You';
  $('my-id').textContent = user.id;
  drawRooms();
  drawRoom();
}

function drawRooms() {
  const items = rooms.list().map((room) => {
    const other = room.type === 'direct' && room.members.find((member) => member.userId !== me()?.id);
    const line = make('span', 'preview quiet', room.preview ?? '');
    const unread = room.unread > 0 && room.id !== current ? make('span', 'badge', `${room.unread}`) : null;
    const mark = avatar(other ? other.userId : room.id, other ? (presence.get(other.userId) ?? 'offline') : null);
    const open = button('', room.id === current ? 'current' : '', () => openRoom(room.id));
    open.append(mark, make('span', 'grow', make('span', 'name', titleOf(room)), line), unread ?? '');
    return make('li', '', open);
  });
  $('rooms').replaceChildren(...items);
  $('no-rooms').hidden = items.length > 0;
}

function drawRoom() {
  const room = rooms.get(current);
  for (const id of ['room-head', 'messages', 'composer']) $(id).hidden = !room;
  $('nothing').hidden = Boolean(room);
  $('chat').classList.toggle('in-room', Boolean(room));
  if (!room) return;
  $('room-title').textContent = titleOf(room);
  $('invite').hidden = room.type === 'direct';
  $('room-members').replaceChildren(
    ...room.members.slice(0, 12).map((member) => {
      const status = presence.get(member.userId) ?? 'offline';
      const dot = make('span', `dot ${status}`);
      dot.title = status;
      return make('span', 'member', dot, nameOf(member.userId));
    }),
  );
  $('older').hidden = !room.prevCursor;
  const box = $('messages');
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 80;
  const readTo = Math.max(0, ...[...room.reads].filter(([user]) => user !== me()?.id).map(([, seq]) => seq));
  const sent = rooms.messages(room).map((message) => messageItem(room, message, readTo));
  const waiting = outbox.of(room.id).map(outboxItem);
  $('list').replaceChildren(...sent, ...waiting);
  if (atEnd) box.scrollTop = box.scrollHeight;
  drawTyping();
}

function messageItem(room, message, readTo) {
  const own = message.senderId === me()?.id;
  const text = message.deletedAt ? make('em', 'quiet', 'Taken back') : make('span', 'content', message.content ?? '');
  const edited = message.editedAt && !message.deletedAt ? ' · edited' : '';
  const ticks = own && !message.deletedAt ? make('span', message.seq <= readTo ? 'ticks seen' : 'ticks', ' ✓✓') : null;
  if (ticks) ticks.title = message.seq <= readTo ? 'read' : 'delivered';
  const foot = make('span', 'foot quiet', `${timeOf(message.sentAt)}${edited}`, ticks);
  const tools = own && !message.deletedAt ? messageTools(room, message) : null;
  const bubble = make('div', 'bubble', own ? null : make('span', 'sender', nameOf(message.senderId)), text, foot, tools);
  const item = make('li', own ? 'own' : '', own ? null : avatar(message.senderId), bubble);
  item.dataset.seq = message.seq;
  return item;
}

function messageTools(room, message) {
  const edit = button('Edit', 'small quiet', () => startEdit(message));
  const remove = button('Delete', 'small quiet', () => {
    const data = { roomId: room.id, messageId: message.messageId, forEveryone: true };
    if (confirm('Take this message back for everyone?')) connection.request('message.delete', data).catch(complain);
  });
  return make('span', 'tools', edit, remove);
}

function outboxItem(item) {
  const words = { pending: 'sending …', queued: '✓ accepted', failed: `not sent: ${item.reason ?? ''}` };
  const foot = make('span', 'foot quiet', `${timeOf(item.at)} · ${words[item.state]}`);
  const tools = make('span', 'tools shown');
  if (item.state === 'failed') {
    tools.append(
      button('Try again', 'small quiet', () => {
        item.state = 'pending';
        flush();
      }),
      button('Discard', 'small quiet', () => {
        outbox.remove(item.clientMsgId);
        drawRoom();
      }),
    );
  }
  return make('li', `own ${item.state}`, make('div', 'bubble', make('span', 'content', item.content), foot, tools));
}

function drawTyping() {
  const room = rooms.get(current);
  const who = room ? [...room.typing].filter(([user, until]) => until > Date.now() && user !== me()?.id) : [];
  const names = who.map(([user]) => nameOf(user)).join(', ');
  $('typing').textContent = names ? `${names} ${who.length > 1 ? 'are' : 'is'} typing …` : '';
}

function drawConnection(state) {
  const words = {
    connecting: 'Connecting …',
    online: 'Connected',
    waiting: `Reconnecting in ${state.seconds} s`,
    replaced: 'Opened elsewhere – click to use it here',
    over: 'Logged out',
  };
  $('connection').className = state.kind;
  $('connection-text').textContent = words[state.kind];
}

function complain(error) {
  $('connection-text').textContent = `${error.message}`;
}

// ---- rooms and messages

async function loadRooms() {
  let after = '';
  do {
    const page = await call('GET', `/conversations?limit=200${after && `&after=${after}`}`);
    page.items.forEach((conversation) => rooms.describe(conversation));
    after = page.nextCursor;
  } while (after);
}

async function openRoom(id) {
  current = id;
  stopEdit();
  const room = rooms.ensure(id);
  draw();
  if (!room.loaded) await loadRoom(room);
  $('messages').scrollTop = $('messages').scrollHeight;
  markRead(room);
  $('text').focus();
}

async function loadRoom(room) {
  const [conversation, history] = await Promise.all([
    call('GET', `/conversations/${room.id}`),
    call('GET', `/conversations/${room.id}/messages?limit=50`),
  ]);
  rooms.describe(conversation);
  rooms.addPage(room, history.items, history.prevCursor);
  // How far the others have read comes with a sync only; so does whatever changed since the page was made.
  await Promise.all([queryPresence(room.members), room.rev > 0 && catchUp([room.id])]);
  draw();
}

async function loadOlder() {
  const room = rooms.get(current);
  const page = await call('GET', `/conversations/${room.id}/messages?limit=50&before=${room.prevCursor}`);
  rooms.addPage(room, page.items, page.prevCursor);
  drawRoom();
}

async function queryPresence(members) {
  const userIds = members.map((member) => member.userId).slice(0, 500);
  const { users } = await connection.request('presence.query', { userIds }).catch(() => ({ users: [] }));
  for (const user of users) presence.set(user.userId, user.status);
}

function markRead(room) {
  if (room.id !== current || document.hidden || room.lastSeq === 0) return;
  room.unread = 0;
  if ((room.reads.get(me()?.id) ?? 0) >= room.lastSeq) return;
  room.reads.set(me()?.id, room.lastSeq);
  connection.request('message.read', { roomId: room.id, seq: room.lastSeq }).catch(() => room.reads.delete(me()?.id));
}

/** Sends what no ack has come for, one after the other, so that the order stays. */
async function flush() {
  for (const item of outbox.unacked()) {
    if (item.sending) continue;
    item.sending = true;
    try {
      const { roomId, content, clientMsgId } = item;
      await connection.request('message.send', { roomId, content, clientMsgId });
      if (outbox.find(clientMsgId)) item.state = 'queued';
    } catch (error) {
      const again = ['UNAVAILABLE', 'OVERLOADED', 'RATE_LIMITED'].includes(error.code);
      if (again) setTimeout(flush, error.retryAfterMs ?? 2000);
      else Object.assign(item, { state: 'failed', reason: error.message });
      if (again) break;
    } finally {
      item.sending = false;
      outbox.save();
      drawRoom();
    }
  }
}

// ---- what the server says

async function ready(data) {
  const known = data.rooms.filter(({ roomId, rev }) => {
    const room = rooms.get(roomId);
    return room?.loaded && room.rev > 0 && rev > room.rev;
  });
  const present = new Set(data.rooms.map(({ roomId }) => roomId));
  rooms.list().filter((room) => !present.has(room.id)).forEach((room) => rooms.remove(room.id));
  for (const { roomId, rev, lastSeq, unread } of data.rooms) {
    const room = rooms.ensure(roomId);
    room.unread = unread;
    room.lastSeq = Math.max(room.lastSeq, lastSeq);
    if (!room.loaded) room.rev = rev;
  }
  await loadRooms();
  await catchUp(known.map(({ roomId }) => roomId));
  await queryPresence(rooms.list().flatMap((room) => room.members));
  if (current && !rooms.get(current)) current = null;
  if (current) await openRoom(current);
  draw();
  flush();
}

/** Asks for all that changed in these rooms since the last change seen here. */
async function catchUp(roomIds) {
  let behind = roomIds;
  while (behind.length) {
    const asked = behind.slice(0, 100).map((roomId) => ({ roomId, afterRev: rooms.get(roomId).rev }));
    const answer = await connection.request('sync', { rooms: asked });
    behind = behind.slice(100);
    for (const synced of answer.rooms) {
      if (synced.code) {
        rooms.remove(synced.roomId);
        continue;
      }
      for (const { event, data } of synced.items) handle(event, data);
      const room = rooms.get(synced.roomId);
      for (const { userId, seq } of synced.reads) room.reads.set(userId, seq);
      if (!synced.complete && synced.items.length) behind.push(synced.roomId);
    }
  }
}

function handle(event, data) {
  if (event === 'message.delivered' && data.senderId === me()?.id) outbox.remove(data.clientMsgId);
  if (event === 'room.memberLeft' && data.userId === me()?.id) {
    rooms.remove(data.roomId);
    if (current === data.roomId) current = null;
    return null;
  }
  return rooms.apply(event, data, me()?.id);
}

async function onServer({ event, data }) {
  if (event === 'session.ready') return ready(data);
  if (event === 'presence.changed') {
    presence.set(data.userId, data.status);
    return draw();
  }
  if (event === 'message.failed') {
    const item = outbox.find(data.clientMsgId);
    if (item) Object.assign(item, { state: 'failed', reason: data.code });
    return drawRoom();
  }
  if (rooms.hasGap(data?.roomId, data?.rev)) {
    await catchUp([data.roomId]);
    return draw();
  }
  if (event === 'room.memberJoined' && !rooms.get(data.roomId)) {
    rooms.ensure(data.roomId).rev = data.rev;
    rooms.describe(await call('GET', `/conversations/${data.roomId}`));
    return draw();
  }
  const room = handle(event, data);
  if (event === 'typing') return drawTyping();
  if (room && event === 'room.created') await queryPresence(room.members);
  draw();
  if (room && event === 'message.delivered') markRead(room);
  return null;
}

// ---- what people do

function showTab(login) {
  $('tab-login').ariaSelected = `${login}`;
  $('tab-register').ariaSelected = `${!login}`;
  $('names').hidden = login;
  for (const input of $('names').querySelectorAll('input')) input.disabled = login;
  $('account-submit').textContent = login ? 'Log in' : 'Sign up';
}

function startEdit(message) {
  editing = message;
  $('editing').hidden = false;
  $('text').value = message.content;
  $('text').focus();
}

function stopEdit() {
  if (editing) $('text').value = '';
  editing = null;
  $('editing').hidden = true;
}

function tellTyping(isTyping) {
  const now = Date.now();
  if (!current || (isTyping && now - typingSentAt < 3000) || (!isTyping && typingSentAt === 0)) return;
  typingSentAt = isTyping ? now : 0;
  connection.request('typing', { roomId: current, isTyping }).catch(() => {});
}

function submitText() {
  const content = $('text').value;
  if (!content.trim() || !current) return;
  tellTyping(false);
  if (editing) {
    const data = { roomId: current, messageId: editing.messageId, content };
    connection.request('message.edit', data).catch(complain);
    stopEdit();
    return;
  }
  $('text').value = '';
  outbox.add(current, content);
  drawRoom();
  $('messages').scrollTop = $('messages').scrollHeight;
  flush();
}

function logOut() {
  connection.close();
  rooms.clear();
  presence.clear();
  current = null;
  leave();
  outbox = new Outbox();
  draw();
}

/** A form whose error stands in the form. */
function onSubmit(form, action) {
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const error = form.querySelector('.error');
    error.textContent = '';
    try {
      await action(Object.fromEntries(new FormData(form)));
    } catch (problem) {
      if (!(problem instanceof ApiError)) throw problem;
      error.textContent = problem.message;
    }
  });
}

function listen() {
  $('tab-register').addEventListener('click', () => showTab(false));
  $('tab-login').addEventListener('click', () => showTab(true));
  onSubmit($('account'), async (fields) => {
    await enter($('tab-login').ariaSelected === 'true' ? 'login' : 'register', fields);
    $('account').reset();
    draw();
    connection.open();
  });
  $('logout').addEventListener('click', logOut);
  $('copy-id').addEventListener('click', async () => {
    // Browsers let pages copy over HTTPS and on localhost only.
    if (!navigator.clipboard) return getSelection().selectAllChildren($('my-id'));
    await navigator.clipboard.writeText(me().id);
    $('copy-id').textContent = 'Copied';
    setTimeout(() => ($('copy-id').textContent = 'Copy'), 1200);
  });
  $('connection').addEventListener('click', () => $('connection').className === 'replaced' && connection.takeOver());
  $('back').addEventListener('click', () => {
    current = null;
    draw();
  });
  $('older').addEventListener('click', () => loadOlder().catch(complain));
  $('cancel-edit').addEventListener('click', stopEdit);
  listenComposer();
  listenDialogs();
  document.addEventListener('visibilitychange', () => current && rooms.get(current) && markRead(rooms.get(current)));
  connection.addEventListener('server', ({ detail }) => Promise.resolve(onServer(detail)).catch(complain));
  connection.addEventListener('state', ({ detail }) => {
    drawConnection(detail);
    if (detail.kind === 'over') logOut();
  });
  setInterval(drawTyping, 1000);
}

function listenComposer() {
  $('composer').addEventListener('submit', (event) => {
    event.preventDefault();
    submitText();
  });
  $('text').addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submitText();
    }
    if (event.key === 'Escape') stopEdit();
  });
  $('text').addEventListener('input', () => !editing && tellTyping($('text').value !== ''));
}

function listenDialogs() {
  $('new-room').addEventListener('click', () => $('room-dialog').showModal());
  $('invite').addEventListener('click', () => $('invite-dialog').showModal());
  for (const closer of document.querySelectorAll('[data-close]')) {
    closer.addEventListener('click', () => closer.closest('dialog').close());
  }
  const form = $('room-form');
  form.elements.type.addEventListener('change', () => {
    $('title-label').hidden = form.elements.type.value === 'direct';
  });
  onSubmit(form, async ({ type, title, memberIds }) => {
    const wanted = { type, memberIds: ids(memberIds), ...(type === 'group' && title && { title }) };
    const conversation = await call('POST', '/conversations', wanted);
    const room = rooms.describe(conversation);
    room.rev = Math.max(room.rev, conversation.rev);
    form.reset();
    $('room-dialog').close();
    await openRoom(room.id);
  });
  onSubmit($('invite-form'), async ({ userIds }) => {
    await call('POST', `/conversations/${current}/members`, { userIds: ids(userIds) });
    $('invite-form').reset();
    $('invite-dialog').close();
  });
}

listen();
showTab(false);
draw();
if (me()) connection.open();
