// REST by the platform's own fetch.

import { randomUUID } from 'node:crypto';

export const PASSWORD = 'correct horse battery';

export async function call(method, url, { token, body } = {}) {
  const headers = {};
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers['content-type'] = 'application/json';
  const answer = await fetch(url, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await answer.text();
  return { status: answer.status, type: answer.headers.get('content-type') ?? '', body: text ? JSON.parse(text) : null };
}

/** Registers somebody and logs in with the password: the token is the login's. */
export async function person(api, name) {
  const email = `${name}-${randomUUID()}@example.org`;
  const form = { email, password: PASSWORD, firstName: name, lastName: 'Test' };
  const registered = await call('POST', `${api}/api/v1/auth/register`, { body: form });
  if (registered.status !== 201) throw new Error(`register: ${registered.status} ${JSON.stringify(registered.body)}`);
  const login = await call('POST', `${api}/api/v1/auth/login`, { body: { email, password: PASSWORD } });
  if (login.status !== 200) throw new Error(`login: ${login.status} ${JSON.stringify(login.body)}`);
  return { id: registered.body.user.id, email, token: login.body.accessToken };
}

/** All messages of a room, page by page from the newest back, in ascending order. */
export async function history(api, room, token, limit) {
  const base = `${api}/api/v1/conversations/${room}/messages?limit=${limit}`;
  let items = [];
  let cursor;
  do {
    const page = await call('GET', cursor === undefined ? base : `${base}&before=${encodeURIComponent(cursor)}`, { token });
    if (page.status !== 200) throw new Error(`history: ${page.status} ${JSON.stringify(page.body)}`);
    items = [...page.body.items, ...items];
    cursor = page.body.prevCursor;
  } while (cursor !== undefined);
  return items;
}
