// What this tab knows of its rooms. Pure: no socket, no page. The same event twice changes nothing.

import { randomName } from './api.js';

/** A room as known here. `messages` by id; `rev` is the last change seen; `pages` says whether older ones exist. */
function newRoom(id) {
  return {
    id,
    type: 'group',
    title: '',
    members: [],
    lastSeq: 0,
    rev: 0,
    unread: 0,
    messages: new Map(),
    reads: new Map(),
    typing: new Map(),
    prevCursor: null,
    loaded: false,
  };
}

export class Rooms {
  #rooms = new Map();

  /** All rooms, the ones with the newest messages first. */
  list() {
    return [...this.#rooms.values()].sort((a, b) => (b.at ?? '').localeCompare(a.at ?? ''));
  }

  get(id) {
    return this.#rooms.get(id);
  }

  /** The room, made if it is new. */
  ensure(id) {
    if (!this.#rooms.has(id)) this.#rooms.set(id, newRoom(id));
    return this.#rooms.get(id);
  }

  remove(id) {
    this.#rooms.delete(id);
  }

  clear() {
    this.#rooms.clear();
  }

  /** Takes over what REST says about a conversation. */
  describe(conversation) {
    const room = this.ensure(conversation.id);
    room.type = conversation.type;
    room.title = conversation.title ?? '';
    if (conversation.members) room.members = conversation.members;
    room.lastSeq = Math.max(room.lastSeq, conversation.lastSeq);
    room.at ??= conversation.lastMessage?.sentAt ?? conversation.createdAt;
    room.preview ??= conversation.lastMessage?.content;
    return room;
  }

  /** Adds a page of history, shaped as `message.delivered`. */
  addPage(room, items, prevCursor) {
    for (const item of items) this.#put(room, item);
    room.prevCursor = prevCursor ?? null;
    room.loaded = true;
  }

  /** The room's messages, oldest first. */
  messages(room) {
    return [...room.messages.values()].sort((a, b) => a.seq - b.seq);
  }

  /** True if `rev` skips changes that were not seen here. */
  hasGap(roomId, rev) {
    const room = this.#rooms.get(roomId);
    return room !== undefined && rev !== undefined && room.rev > 0 && rev > room.rev + 1;
  }

  /** Applies an event of the server; returns the room it changed, if any. */
  apply(event, data, me) {
    if (!data?.roomId) return null;
    const room = event === 'room.created' ? this.describe({ ...data, id: data.roomId }) : this.#rooms.get(data.roomId);
    if (!room) return null;
    const known = data.rev !== undefined && data.rev <= room.rev;
    if (data.rev > room.rev) room.rev = data.rev;
    this.#change(room, event, data, me, known);
    const last = this.messages(room).at(-1);
    if (last?.seq === room.lastSeq) room.preview = last.deletedAt ? 'Taken back' : last.content;
    return room;
  }

  #change(room, event, data, me, known) {
    const message = room.messages.get(data.messageId);
    switch (event) {
      case 'message.delivered':
        if (!known && data.senderId !== me) room.unread += 1;
        room.typing.delete(data.senderId);
        this.#put(room, data);
        break;
      case 'message.edited':
        if (message && !message.deletedAt) Object.assign(message, { content: data.content, editedAt: data.editedAt });
        break;
      case 'message.deleted':
        if (message) Object.assign(message, { content: undefined, deletedAt: data.deletedAt });
        break;
      case 'message.read':
        room.reads.set(data.userId, Math.max(room.reads.get(data.userId) ?? 0, data.seq));
        if (data.userId === me && data.seq >= room.lastSeq) room.unread = 0;
        break;
      case 'room.updated':
        room.title = data.title ?? room.title;
        break;
      case 'room.memberJoined':
        room.members = room.members.filter((member) => member.userId !== data.userId);
        room.members.push({ userId: data.userId, role: data.role ?? 'member' });
        break;
      case 'room.memberLeft':
        room.members = room.members.filter((member) => member.userId !== data.userId);
        break;
      case 'typing':
        if (data.isTyping) room.typing.set(data.userId, Date.now() + 6000);
        else room.typing.delete(data.userId);
        break;
    }
  }

  /** A tombstone stays one, whatever comes late. */
  #put(room, item) {
    if (room.messages.get(item.messageId)?.deletedAt) return;
    room.messages.set(item.messageId, { ...item });
    if (item.seq >= room.lastSeq) {
      room.lastSeq = item.seq;
      room.at = item.sentAt;
      room.preview = item.content;
    }
  }
}

const OUTBOX_KEY = 'chatchit.outbox';

/** Messages that the server has not delivered back yet; they survive a reload of the tab. */
export class Outbox {
  #items = JSON.parse(sessionStorage.getItem(OUTBOX_KEY) ?? '[]');

  /**
   * A new message; its name never changes, so that sending it again cannot double it. `afterSeq` is the room's last
   * message now: the new one will stand after it.
   */
  add(roomId, content, afterSeq) {
    const at = new Date().toISOString();
    const item = { roomId, content, clientMsgId: randomName(), state: 'pending', at, afterSeq };
    this.#items.push(item);
    this.save();
    return item;
  }

  of(roomId) {
    return this.#items.filter((item) => item.roomId === roomId);
  }

  /** The first for which no ack has come. */
  nextPending() {
    return this.#items.find((item) => item.state === 'pending');
  }

  /** After which `seq` to look for what was acked and has not come back; undefined if there is no such message. */
  searchFrom(roomId) {
    const acked = this.of(roomId).filter((item) => item.state === 'queued');
    return acked.length ? Math.min(...acked.map((item) => item.afterSeq ?? 0)) : undefined;
  }

  find(clientMsgId) {
    return this.#items.find((item) => item.clientMsgId === clientMsgId);
  }

  /** Lets go of what the server has shown, be it live, in the history or as a tombstone. */
  settle(messages, me) {
    const names = new Set(messages.filter((message) => message.senderId === me).map((message) => message.clientMsgId));
    const ids = new Set(messages.map((message) => message.messageId));
    const kept = this.#items.filter((item) => !names.has(item.clientMsgId) && !ids.has(item.messageId));
    if (kept.length === this.#items.length) return;
    this.#items = kept;
    this.save();
  }

  remove(clientMsgId) {
    this.#items = this.#items.filter((item) => item.clientMsgId !== clientMsgId);
    this.save();
  }

  save() {
    sessionStorage.setItem(OUTBOX_KEY, JSON.stringify(this.#items));
  }
}
