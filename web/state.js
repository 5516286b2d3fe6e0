// What this tab knows and shows, in one place.

import { session } from './api.js';
import { Connection } from './connection.js';
import { Outbox, Rooms } from './room.js';

const OPEN_ROOM = 'chatchit.room';

export const rooms = new Rooms();
export const connection = new Connection();
export const presence = new Map();

export const state = {
  outbox: new Outbox(),
  /** The id of the room on the screen; a reload opens it again. */
  get current() {
    return sessionStorage.getItem(OPEN_ROOM);
  },
  set current(id) {
    if (id) sessionStorage.setItem(OPEN_ROOM, id);
    else sessionStorage.removeItem(OPEN_ROOM);
  },
};

export const me = () => session.get()?.user;
export const currentRoom = () => rooms.get(state.current);

/** Forgets everything. */
export function forget() {
  rooms.clear();
  presence.clear();
  state.current = null;
}
