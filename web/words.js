// What the server's codes mean to people.

const USER_ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

const IDS = 'Please check the user ids. Each is copied from another person\'s page; your own is not needed.';

const FIELDS = {
  email: 'This is not an e-mail address.',
  password: 'The password needs 8 to 256 characters.',
  firstName: 'Please give a first name of at most 100 characters.',
  lastName: 'Please give a last name of at most 100 characters.',
  title: 'The title may have at most 200 characters, all on one line.',
  content: 'This text cannot be sent: it is empty or holds control characters.',
  memberIds: IDS,
  userIds: IDS,
};

const CODES = {
  NO_API: 'This gateway serves no REST: the proxy in front of it must route /api/v1 to an api.',
  INVALID_PAYLOAD: 'The server did not understand that.',
  UNKNOWN_EVENT: 'The server does not know how to do that.',
  UNAUTHENTICATED: 'Please log in again.',
  FORBIDDEN: 'You may not do that here.',
  NOT_FOUND: 'That is not there, or not any more.',
  CONFLICT: 'Somebody else has changed that meanwhile.',
  TOO_LARGE: 'That is too long.',
  RATE_LIMITED: 'That was too fast.',
  OVERLOADED: 'The server is very busy. Please try again soon.',
  UNAVAILABLE: 'The server cannot be reached just now.',
  INTERNAL: 'Something went wrong on the server.',
};

/** A sentence for people. `where` is `account` in the form to log in and sign up. */
export function sentence(error, where = '') {
  const { code, field } = error;
  if (where === 'account' && code === 'UNAUTHENTICATED') return 'The e-mail address or the password is wrong.';
  if (where === 'account' && code === 'FORBIDDEN') return 'This account is blocked.';
  if (code === 'CONFLICT' && field === 'email') return 'There is an account with this e-mail address already.';
  if (code === 'RATE_LIMITED' && error.retryAfterMs >= 1000) {
    return `${CODES.RATE_LIMITED} Please try again in ${Math.ceil(error.retryAfterMs / 1000)} s.`;
  }
  return (code === 'INVALID_PAYLOAD' && FIELDS[field]) || CODES[code] || 'Something went wrong in this page.';
}

/** The user ids in a text, separated by anything; an error that is meant for people if one is none. */
export function userIds(text) {
  const ids = text.split(/[\s,;]+/).filter(Boolean);
  const wrong = ids.find((id) => !USER_ID.test(id));
  if (wrong) throw new Told(`"${wrong.slice(0, 40)}" is not a user id. ${IDS}`);
  return ids;
}

/** An error whose message is for people already. */
export class Told extends Error {}
