// The page: what people do in it, put on the wire and on the screen.

import { ApiError, call, enter, leave } from './api.js';
import { $ } from './dom.js';
import { Outbox } from './room.js';
import { flush } from './sender.js';
import { connection, currentRoom, forget, me, rooms, state } from './state.js';
import { edits, loadOlder, loadRoom, markRead, onServer } from './sync.js';
import { actions, complain, draw, drawConnection, drawRoom, drawTyping } from './view.js';
import { sentence, Told, userIds } from './words.js';

/** What was begun in a room and not sent, by room. */
const drafts = new Map();
/** Edits without an outcome yet: the text, by message. */
const changes = new Map();
let editing = null;
let typingSentAt = 0;

// ---- rooms and messages

async function openRoom(id) {
  stopEdit();
  keepDraft();
  state.current = id;
  $('text').value = drafts.get(id) ?? '';
  rooms.ensure(id);
  draw();
  await showRoom();
  if (state.current === id) $('text').focus();
}

/** Loads what is not there yet; without a server that is done when the connection is back. */
async function showRoom() {
  const room = currentRoom();
  if (!room) return;
  try {
    await loadRoom(room);
  } catch (error) {
    complain(error);
    return;
  }
  if (room.id !== state.current) return;
  $('messages').scrollTop = $('messages').scrollHeight;
  markRead(room);
}

/** The reader's place stays where it is. */
async function showOlder() {
  const room = currentRoom();
  await loadOlder(room);
  const box = $('messages');
  const fromEnd = box.scrollHeight - box.scrollTop;
  drawRoom();
  box.scrollTop = box.scrollHeight - fromEnd;
}

function keepDraft() {
  if (state.current && !editing) drafts.set(state.current, $('text').value);
}

function startEdit(message, content = message.content) {
  keepDraft();
  editing = message;
  $('editing').hidden = false;
  $('text').value = content;
  $('text').focus();
}

function stopEdit() {
  if (!editing) return;
  editing = null;
  $('editing').hidden = true;
  $('text').readOnly = false;
  $('text').value = drafts.get(state.current) ?? '';
}

/** The text stays until the server has accepted it. */
async function submitEdit(content) {
  const message = editing;
  if ($('text').readOnly) return;
  $('text').readOnly = true;
  try {
    const data = { roomId: state.current, messageId: message.messageId, content };
    changes.set(message.messageId, { message, content });
    await connection.request('message.edit', data);
    if (editing === message) stopEdit();
  } catch (error) {
    changes.delete(message.messageId);
    complain(new Told(`The change is not saved. ${sentence(error)}`));
  } finally {
    $('text').readOnly = false;
  }
}

edits.done = (messageId) => changes.delete(messageId);
edits.failed = (messageId) => {
  const change = changes.get(messageId);
  changes.delete(messageId);
  const isFree = !editing && $('text').value === '' && change?.message.roomId === state.current;
  if (change && isFree) startEdit(change.message, change.content);
};

function tellTyping(isTyping) {
  const now = Date.now();
  if (!state.current || (isTyping && now - typingSentAt < 3000) || (!isTyping && typingSentAt === 0)) return;
  typingSentAt = isTyping ? now : 0;
  connection.request('typing', { roomId: state.current, isTyping }).catch(() => {});
}

function submitText() {
  const content = $('text').value;
  const room = currentRoom();
  if (!content.trim() || !room) return;
  tellTyping(false);
  if (editing) {
    submitEdit(content);
    return;
  }
  $('text').value = '';
  state.outbox.add(room.id, content, room.lastSeq);
  drawRoom();
  $('messages').scrollTop = $('messages').scrollHeight;
  flush();
}

Object.assign(actions, {
  openRoom,
  startEdit: (message) => startEdit(message),
  deleteMessage(room, message) {
    const data = { roomId: room.id, messageId: message.messageId, forEveryone: true };
    if (confirm('Take this message back for everyone?')) connection.request('message.delete', data).catch(complain);
  },
  retry(item) {
    item.state = 'pending';
    drawRoom();
    flush();
  },
  discard(item) {
    state.outbox.remove(item.clientMsgId);
    drawRoom();
  },
});

// ---- the account

function showTab(login) {
  $('tab-login').ariaSelected = `${login}`;
  $('tab-register').ariaSelected = `${!login}`;
  $('names').hidden = login;
  for (const input of $('names').querySelectorAll('input')) input.disabled = login;
  $('account-submit').textContent = login ? 'Log in' : 'Sign up';
  $('account-error').textContent = '';
}

function logOut() {
  connection.close();
  stopEdit();
  $('text').value = '';
  drafts.clear();
  changes.clear();
  forget();
  leave();
  state.outbox = new Outbox();
  draw();
}

/** A form whose error stands in the form. */
function onSubmit(form, where, action) {
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const error = form.querySelector('.error');
    error.textContent = '';
    try {
      await action(Object.fromEntries(new FormData(form)));
    } catch (problem) {
      if (!(problem instanceof ApiError) && !(problem instanceof Told)) throw problem;
      error.textContent = problem instanceof Told ? problem.message : sentence(problem, where);
    }
  });
}

// ---- listening

function listen() {
  $('tab-register').addEventListener('click', () => showTab(false));
  $('tab-login').addEventListener('click', () => showTab(true));
  onSubmit($('account'), 'account', async (fields) => {
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
  $('back').addEventListener('click', () => {
    stopEdit();
    keepDraft();
    state.current = null;
    draw();
  });
  $('older').addEventListener('click', () => showOlder().catch(complain));
  $('load-again').addEventListener('click', showRoom);
  $('cancel-edit').addEventListener('click', stopEdit);
  listenComposer();
  listenDialogs();
  listenConnection();
  document.addEventListener('visibilitychange', () => currentRoom() && markRead(currentRoom()));
}

function listenConnection() {
  let shown = { kind: 'connecting' };
  connection.addEventListener('server', ({ detail }) => Promise.resolve(onServer(detail)).catch(complain));
  connection.addEventListener('state', ({ detail }) => {
    shown = detail;
    drawConnection(shown);
    if (shown.kind === 'over') logOut();
  });
  for (const takeOver of document.querySelectorAll('.take-over')) {
    takeOver.addEventListener('click', () => connection.takeOver());
  }
  setInterval(() => {
    drawTyping();
    if (shown.kind === 'waiting') drawConnection(shown);
  }, 1000);
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

/** Opens a dialog without what went wrong in it the last time. */
function openDialog(dialog) {
  dialog.querySelector('.error').textContent = '';
  dialog.showModal();
}

function listenDialogs() {
  $('new-room').addEventListener('click', () => openDialog($('room-dialog')));
  $('invite').addEventListener('click', () => openDialog($('invite-dialog')));
  for (const closer of document.querySelectorAll('[data-close]')) {
    closer.addEventListener('click', () => closer.closest('dialog').close());
  }
  const form = $('room-form');
  const showTitle = () => ($('title-label').hidden = form.elements.type.value === 'direct');
  form.elements.type.addEventListener('change', showTitle);
  onSubmit(form, '', async ({ type, title, memberIds }) => {
    const members = userIds(memberIds);
    if (type === 'direct' && members.length !== 1) throw new Told('A direct conversation is with exactly one other person.');
    const wanted = { type, memberIds: members, ...(type === 'group' && title && { title }) };
    const conversation = await call('POST', '/conversations', wanted);
    const room = rooms.describe(conversation);
    room.rev = Math.max(room.rev, conversation.rev);
    form.reset();
    showTitle();
    $('room-dialog').close();
    await openRoom(room.id);
  });
  onSubmit($('invite-form'), '', async (fields) => {
    const ids = userIds(fields.userIds);
    if (!ids.length) throw new Told('Please give at least one user id.');
    await call('POST', `/conversations/${state.current}/members`, { userIds: ids });
    $('invite-form').reset();
    $('invite-dialog').close();
  });
}

listen();
showTab(false);
draw();
if (me()) connection.open();
