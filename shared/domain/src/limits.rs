//! Every limit of the public contract in one place, with its unit in its name.
//!
//! What an operator may change lives in `config`; what is here is part of the protocol.

/// A message's content, UTF-8 bytes. Larger: `TOO_LARGE`.
pub const CONTENT_BYTES: usize = 16 * 1024;
/// A client's own name for a message or call, characters.
pub const CLIENT_MSG_ID_CHARS: usize = 64;
/// A device's name, characters.
pub const DEVICE_ID_CHARS: usize = 64;
/// A frame's id when it is a string, characters.
pub const FRAME_ID_CHARS: usize = 64;
/// A frame on any socket. Larger: the connection closes with 4413.
pub const FRAME_BYTES: usize = 256 * 1024;
/// Objects and arrays inside one another in a frame. Deeper: the connection closes with 4400.
pub const FRAME_NESTING: usize = 32;
/// Attachments on one message.
pub const ATTACHMENTS: usize = 20;
/// An attachment's link, characters.
pub const ATTACHMENT_URL_CHARS: usize = 2048;
/// An attachment's name or media type, characters.
pub const ATTACHMENT_NAME_CHARS: usize = 255;
/// People mentioned in one message.
pub const MENTIONS: usize = 50;
/// An emoji in a reaction, UTF-8 bytes (a family with skin tones takes 41).
pub const EMOJI_BYTES: usize = 64;
/// A room's title, characters.
pub const TITLE_CHARS: usize = 200;
/// People named in one request that makes a group or adds to it.
pub const MEMBERS_PER_REQUEST: usize = 1000;
/// Bytes of one `sync` answer, about; then it ends early. Small, because a client that does not read
/// its answers must not cost much.
pub const ANSWER_BYTES: usize = 64 * 1024;
/// Bytes of one REST page of history, about; then it ends early.
pub const PAGE_BYTES: usize = 1024 * 1024;
/// Different emoji of one person on one message.
pub const REACTIONS_PER_USER: usize = 20;
/// Rooms asked for in one `sync`.
pub const SYNC_ROOMS: usize = 500;
/// Items of one room in one `sync` answer; more: `complete: false`.
pub const SYNC_ITEMS_PER_ROOM: usize = 200;
/// Items of all rooms together in one `sync` answer.
pub const SYNC_ITEMS: usize = 1000;
/// Rooms of a user who polls; with more the cursor would be too long for an address.
pub const POLL_ROOMS: usize = 1000;
/// How long a poll may wait for something to tell, milliseconds.
pub const POLL_WAIT_MS: usize = 30_000;
/// How long a poll waits when the request does not say, milliseconds.
pub const POLL_WAIT_MS_DEFAULT: usize = 25_000;
/// Polls of one user at a time, in one process.
pub const POLLS_PER_USER: usize = 4;
/// Users asked for in one `presence.query`.
pub const PRESENCE_USERS: usize = 500;
/// Items of one REST page at most, and when none is asked for.
pub const PAGE_ITEMS: usize = 200;
/// Items of one REST page when the request does not say.
pub const PAGE_ITEMS_DEFAULT: usize = 50;
/// Commands of one connection that wait for an answer; more: the connection is not read on.
pub const COMMANDS_IN_FLIGHT: usize = 256;
/// An e-mail address, characters (RFC 5321 section 4.5.3.1).
pub const EMAIL_CHARS: usize = 254;
/// A person's name, characters.
pub const NAME_CHARS: usize = 100;
/// A password, characters (Unicode scalar values): at least, and at most.
pub const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=256;
/// A password, UTF-8 bytes (Argon2 hashes all of them).
pub const PASSWORD_BYTES: usize = 1024;
