// The session and the REST calls. A session lives in this tab alone, so that two tabs can be two people.

const KEY = 'chatchit.session';

/** A random name. `crypto.randomUUID` is there over HTTPS and on localhost only, not on a phone in the same network. */
export function randomName() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** A refusal of the server; `words.js` says it to people. */
export class ApiError extends Error {
  constructor(problem, status) {
    super(problem.detail ?? problem.title ?? `HTTP ${status}`);
    // A gateway alone has no such route and answers without a problem document.
    this.code = problem.code ?? (status === 404 || status === 405 ? 'NO_API' : 'UNAVAILABLE');
    this.field = problem.field;
    this.retryAfterMs = problem.retryAfterMs;
    this.status = status;
  }
}

/** The session of this tab, or null. */
export const session = {
  get() {
    return JSON.parse(sessionStorage.getItem(KEY) ?? 'null');
  },
  set(value) {
    sessionStorage.setItem(KEY, JSON.stringify(value));
  },
  clear() {
    sessionStorage.clear();
  },
};

async function request(method, path, body, token) {
  const headers = {};
  if (body !== undefined) headers['content-type'] = 'application/json';
  if (token) headers.authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(`/api/v1${path}`, { method, headers, body: body && JSON.stringify(body) });
  } catch {
    throw new ApiError({ title: 'The server cannot be reached.' }, 0);
  }
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => null);
  // A success without its body was cut off on the way.
  if (response.ok && !answer) throw new ApiError({}, 0);
  if (!response.ok) throw new ApiError(answer ?? {}, response.status);
  return answer;
}

/** Signs up or logs in: `path` is `register` or `login`. */
export async function enter(path, fields) {
  session.set(await request('POST', `/auth/${path}`, fields));
}

/** Ends the session here and on the server. */
export async function leave() {
  const { accessToken, refreshToken } = session.get() ?? {};
  session.clear();
  if (refreshToken) await request('POST', '/auth/logout', { refreshToken }, accessToken).catch(() => {});
}

let refreshing = null;

/** A new access token; false if the session is over. A refresh token works once, so only one call is under way. */
export function refresh() {
  refreshing ??= request('POST', '/auth/refresh', { refreshToken: session.get()?.refreshToken })
    .then((renewed) => {
      session.set(renewed);
      return true;
    })
    .catch((error) => {
      if (error.status === 401 || error.status === 400) return false;
      throw error;
    })
    .finally(() => {
      refreshing = null;
    });
  return refreshing;
}

/** A call in the name of the session; an expired token is renewed once. */
export async function call(method, path, body) {
  try {
    return await request(method, path, body, session.get()?.accessToken);
  } catch (error) {
    if (error.status !== 401 || !(await refresh())) throw error;
    return request(method, path, body, session.get()?.accessToken);
  }
}
