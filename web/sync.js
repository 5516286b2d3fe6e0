// Keeps what this tab knows equal to what the server knows: pages of history, what came since, what comes live.

import { call } from './api.js';
import { connection, currentRoom, me, presence, rooms, state } from './state.js';
import { flush } from './sender.js';
import { announce, complain, draw, drawRoom, drawTyping } from './view.js';
import { sentence, Told } from './words.js';

const RETRY_MS = 3000;
const PAGE = 50;

let session = null;

/** What to do with an edit that was accepted and could not be carried out: set by `app.js`. */
export const edits = { failed: () => {}, done: () => {} };

async function loadRooms() {
  let after = '';
  do {
    const page = await call('GET', `/conversations?limit=200${after && `&after=${after}`}`);
    page.items.forEach((conversation) => rooms.describe(conversation));
    after = page.nextCursor;
  } while (after);
}

function addPage(room, history) {
  rooms.addPage(room, history.items, history.prevCursor);
  state.outbox.settle(history.items, me()?.id);
}

/** Loads a room that was not loaded; says so in the room if that fails. */
export async function loadRoom(room) {
  if (room.loaded) return;
  try {
    const [conversation, history] = await Promise.all([
      call('GET', `/conversations/${room.id}`),
      call('GET', `/conversations/${room.id}/messages?limit=${PAGE}`),
    ]);
    rooms.describe(conversation);
    addPage(room, history);
    await findAcked(room);
    room.loadFailed = false;
  } catch (error) {
    room.loadFailed = true;
    drawRoom();
    throw error;
  }
  // How far the others have read comes with a sync only; so does whatever changed since the page was made.
  await Promise.all([queryPresence(room.members), room.rev > 0 && catchUp([room.id])]);
  draw();
}

/** What was acked before a reload may be further back than the newest page. */
async function findAcked(room) {
  let after = state.outbox.searchFrom(room.id);
  const oldest = rooms.messages(room)[0]?.seq ?? 0;
  while (after !== undefined && after + 1 < oldest) {
    const page = await call('GET', `/conversations/${room.id}/messages?limit=200&after=${after}`);
    state.outbox.settle(page.items, me()?.id);
    if (!page.nextCursor || state.outbox.searchFrom(room.id) === undefined) return;
    after = Number(page.nextCursor);
  }
}

export async function loadOlder(room) {
  addPage(room, await call('GET', `/conversations/${room.id}/messages?limit=${PAGE}&before=${room.prevCursor}`));
}

async function queryPresence(members) {
  const userIds = members.map((member) => member.userId).slice(0, 500);
  const { users } = await connection.request('presence.query', { userIds }).catch(() => ({ users: [] }));
  for (const user of users) presence.set(user.userId, user.status);
}

export function markRead(room) {
  if (room.id !== state.current || document.hidden || room.lastSeq === 0) return;
  room.unread = 0;
  if ((room.reads.get(me()?.id) ?? 0) >= room.lastSeq) return;
  room.reads.set(me()?.id, room.lastSeq);
  connection.request('message.read', { roomId: room.id, seq: room.lastSeq }).catch(() => room.reads.delete(me()?.id));
}

/** A new connection: takes over what it says, catches up, sends what waits; tries again if that fails half-way. */
async function ready(data) {
  session = data.sessionId;
  flush();
  try {
    await takeOver(data);
  } catch (error) {
    // Without a connection the next one does it.
    const isCurrent = () => session === data.sessionId && connection.isOnline && me();
    if (isCurrent()) complain(error);
    setTimeout(() => isCurrent() && ready(data), RETRY_MS);
  }
  draw();
}

async function takeOver(data) {
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
  if (!currentRoom()) state.current = null;
  const room = currentRoom();
  if (!room) return;
  draw();
  await loadRoom(room);
  markRead(room);
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
      if (!room) continue;
      for (const { userId, seq } of synced.reads) room.reads.set(userId, seq);
      if (!synced.complete && synced.items.length) behind.push(synced.roomId);
    }
  }
}

function handle(event, data) {
  if (event === 'message.delivered') state.outbox.settle([data], me()?.id);
  if (event === 'message.edited' || event === 'message.deleted') edits.done(data.messageId);
  if (event === 'room.memberLeft' && data.userId === me()?.id) {
    rooms.remove(data.roomId);
    if (state.current === data.roomId) state.current = null;
    return null;
  }
  return rooms.apply(event, data, me()?.id);
}

function failed(data) {
  const item = state.outbox.find(data.clientMsgId);
  if (item) {
    Object.assign(item, { state: 'failed', reason: sentence(data) });
    state.outbox.save();
    drawRoom();
    return;
  }
  edits.failed(data.messageId);
  complain(new Told(`A change could not be made. ${sentence(data)}`));
}

/** Takes over an event of the server. */
export async function onServer({ event, data }) {
  if (event === 'session.ready') return ready(data);
  if (event === 'message.failed') return failed(data);
  if (event === 'presence.changed') {
    presence.set(data.userId, data.status);
    return draw();
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
  if (room && event === 'message.delivered') {
    markRead(room);
    if (room.id === state.current && data.senderId !== me()?.id) announce(data);
  }
  return null;
}
