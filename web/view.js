// Draws what `state.js` holds. What people do with it is in `actions`, which `app.js` sets.

import { $, button, make, redraw } from './dom.js';
import { currentRoom, me, presence, rooms, state } from './state.js';
import { sentence, Told } from './words.js';

/** openRoom(id), startEdit(message), deleteMessage(room, message), retry(item), discard(item). */
export const actions = {};

const NOTICE_MS = 6000;
const NO_NAMES = 'Names of others come with a later release; until then the end of their user id is shown:';

const short = (id) => id.slice(-6);
export const nameOf = (id) => (id === me()?.id ? 'You' : `Guest ${short(id)}`);
const timeOf = (at) => new Date(at).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });

/** Somebody's name, with a word on why it is none. */
function nameTag(id, className) {
  const tag = make('span', className, nameOf(id));
  if (id !== me()?.id) tag.title = `${NO_NAMES} ${id}`;
  return tag;
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

export function draw() {
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
    const unread = room.unread > 0 && room.id !== state.current ? make('span', 'badge', `${room.unread}`) : null;
    const mark = avatar(other ? other.userId : room.id, other ? (presence.get(other.userId) ?? 'offline') : null);
    const open = button('', room.id === state.current ? 'current' : '', () => actions.openRoom(room.id), room.id);
    open.append(mark, make('span', 'grow', make('span', 'name', titleOf(room)), line), unread ?? '');
    return make('li', '', open);
  });
  redraw($('rooms'), items);
  $('no-rooms').hidden = items.length > 0;
}

export function drawRoom() {
  const room = currentRoom();
  for (const id of ['room-head', 'messages', 'composer']) $(id).hidden = !room;
  $('nothing').hidden = Boolean(room);
  $('chat').classList.toggle('in-room', Boolean(room));
  if (!room) return;
  $('room-title').textContent = titleOf(room);
  $('room-title').title = titleOf(room);
  $('invite').hidden = room.type === 'direct';
  $('room-members').replaceChildren(
    ...room.members.slice(0, 12).map((member) => {
      const status = presence.get(member.userId) ?? 'offline';
      const dot = make('span', `dot ${status}`);
      dot.title = status;
      return make('span', 'member', dot, nameTag(member.userId, ''));
    }),
  );
  $('older').hidden = !room.prevCursor;
  $('unloaded').hidden = !room.loadFailed;
  const box = $('messages');
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 80;
  const readTo = Math.max(0, ...[...room.reads].filter(([user]) => user !== me()?.id).map(([, seq]) => seq));
  const sent = rooms.messages(room).map((message) => messageItem(room, message, readTo));
  const waiting = state.outbox.of(room.id).map(outboxItem);
  redraw($('list'), [...sent, ...waiting]);
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
  const sender = own ? null : nameTag(message.senderId, 'sender');
  const bubble = make('div', 'bubble', sender, text, make('span', 'base', tools, foot));
  const item = make('li', own ? 'own' : '', own ? null : avatar(message.senderId), bubble);
  item.dataset.seq = message.seq;
  return item;
}

function messageTools(room, message) {
  const { messageId } = message;
  const edit = button('Edit', 'small quiet', () => actions.startEdit(message), `edit ${messageId}`);
  const remove = button('Delete', 'small quiet', () => actions.deleteMessage(room, message), `delete ${messageId}`);
  return make('span', 'tools', edit, remove);
}

function outboxItem(item) {
  const words = { pending: 'sending …', queued: '✓ accepted', failed: `not sent: ${item.reason ?? ''}` };
  const foot = make('span', 'foot quiet', `${timeOf(item.at)} · ${words[item.state]}`);
  const tools = make('span', 'tools shown');
  if (item.state === 'failed') {
    tools.append(
      button('Try again', 'small quiet', () => actions.retry(item)),
      button('Discard', 'small quiet', () => actions.discard(item)),
    );
  }
  const base = make('span', 'base', tools, foot);
  return make('li', `own ${item.state}`, make('div', 'bubble', make('span', 'content', item.content), base));
}

export function drawTyping() {
  const room = currentRoom();
  const who = room ? [...room.typing].filter(([user, until]) => until > Date.now() && user !== me()?.id) : [];
  const names = who.map(([user]) => nameOf(user)).join(', ');
  $('typing').textContent = names ? `${names} ${who.length > 1 ? 'are' : 'is'} typing …` : '';
}

/** Beside one's own name, and on a phone also in the room. */
export function drawConnection({ kind, until }) {
  const network = navigator.onLine ? '' : 'No network. ';
  const words = {
    connecting: 'Connecting …',
    online: 'Connected',
    waiting: `${network}Reconnecting in ${Math.max(0, Math.ceil((until - Date.now()) / 1000))} s`,
    replaced: 'Opened elsewhere',
    over: 'Logged out',
  };
  for (const place of document.querySelectorAll('.connection')) {
    place.classList.remove('connecting', 'online', 'waiting', 'replaced', 'over');
    place.classList.add(kind);
    place.querySelector('.words').textContent = words[kind];
    place.querySelector('.take-over').hidden = kind !== 'replaced';
  }
}

/** Reads out what others write into the open room. */
export function announce(message) {
  $('announcement').textContent = `${nameOf(message.senderId)}: ${message.content ?? ''}`;
}

let noticeTimer = 0;

/** Says for a while what went wrong; an error that no code explains is also for the console. */
export function complain(error) {
  const isKnown = error instanceof Told || error.code;
  if (!isKnown) console.error(error);
  $('notice').textContent = error instanceof Told ? error.message : sentence(error);
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => ($('notice').textContent = ''), NOTICE_MS);
}
