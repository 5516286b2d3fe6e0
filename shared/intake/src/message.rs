//! Messages on their way in: sending, editing, taking back, reacting.

use domain::message::{MessageType, check_client_msg_id, check_content, check_emoji, check_text};
use domain::permission::Action;
use domain::{Invalid, JobId, MessageId, RoomId, UserId, limits};
use protocol::{Change, Refusal, wire};
use store::message::MessageRow;

use crate::{Accepted, Actor, Intake, Standing, permit, queued, queued_about};

/// Checks everything about a new message but the sender's standing; answers its room.
pub fn check(send: &wire::MessageSend) -> Result<RoomId, Refusal> {
    check_fields(send).map_err(|invalid| Refusal::from(invalid).of(&send.client_msg_id))
}

fn check_fields(send: &wire::MessageSend) -> Result<RoomId, Invalid> {
    let room = RoomId::parse("roomId", &send.room_id)?;
    check_client_msg_id(&send.client_msg_id)?;
    MessageType::parse(send.r#type.as_deref())?;
    check_content(&send.content, !send.attachments.is_empty())?;
    if let Some(target) = &send.reply_to {
        MessageId::parse("replyTo", target)?;
    }
    if send.mentions.len() > limits::MENTIONS {
        return Err(Invalid::new("mentions", format!("must name at most {} users", limits::MENTIONS)));
    }
    for user in &send.mentions {
        UserId::parse("mentions", user)?;
    }
    if send.attachments.len() > limits::ATTACHMENTS {
        return Err(Invalid::new("attachments", format!("must be at most {}", limits::ATTACHMENTS)));
    }
    send.attachments.iter().try_for_each(check_attachment)?;
    Ok(room)
}

fn check_attachment(attachment: &wire::Attachment) -> Result<(), Invalid> {
    let field = "attachments";
    let lengths = [
        (Some(&attachment.url), limits::ATTACHMENT_URL_CHARS),
        (attachment.name.as_ref(), limits::ATTACHMENT_NAME_CHARS),
        (attachment.mime_type.as_ref(), limits::ATTACHMENT_NAME_CHARS),
    ];
    if attachment.url.trim().is_empty() {
        return Err(Invalid::new(field, "need a url each"));
    }
    if is_script(&attachment.url) {
        return Err(Invalid::new(field, "hold a url that is no address of a file"));
    }
    let numbers = [attachment.size_bytes, attachment.duration_ms];
    let sizes = [attachment.width, attachment.height];
    if numbers.into_iter().flatten().any(i64::is_negative) || sizes.into_iter().flatten().any(i32::is_negative) {
        return Err(Invalid::new(field, "hold a negative number"));
    }
    for (text, most) in lengths {
        let Some(text) = text else { continue };
        if text.chars().count() > most {
            return Err(Invalid::new(field, format!("hold a text of more than {most} characters")));
        }
        check_text(field, text, false)?;
    }
    Ok(())
}

/// True for what a browser would run instead of loading it.
fn is_script(url: &str) -> bool {
    let scheme = url.trim_start().split(':').next().unwrap_or_default();
    ["javascript", "vbscript", "data"].iter().any(|bad| scheme.eq_ignore_ascii_case(bad))
}

impl Intake {
    /// Accepts a message that `check` has passed, by a member with `standing`.
    pub fn send_message(
        &self,
        actor: &Actor,
        send: wire::MessageSend,
        standing: Standing,
    ) -> Result<Accepted, Refusal> {
        let room = check(&send)?;
        permit(standing, Action::Send).map_err(|refusal| refusal.of(&send.client_msg_id))?;
        let id = MessageId::of(actor.user, &send.client_msg_id);
        let ack = queued(Some(send.client_msg_id.clone()), id);
        self.submit(actor, id.into(), room, Change::MessageSend(send), ack)
    }

    /// Accepts new content for one's own message.
    pub async fn edit_message(
        &self,
        actor: &Actor,
        edit: wire::MessageEdit,
        standing: Standing,
    ) -> Result<Accepted, Refusal> {
        let (room, id) = target(&edit.room_id, &edit.message_id)?;
        check_content(&edit.content, false)?;
        permit(standing, Action::ChangeOwn)?;
        if let Some(row) = self.known_target(room, id).await? {
            if row.sender != actor.user {
                return Err(Refusal::forbidden());
            }
            // The words of an attachment may be emptied, those of a text may not.
            check_content(&edit.content, !row.attachments.is_empty())?;
        }
        let job = JobId::generate();
        self.submit(actor, job, room, Change::MessageEdit(edit), queued_about(id, job))
    }

    /// Accepts taking back a message: one's own, or anybody's by right.
    pub async fn delete_message(
        &self,
        actor: &Actor,
        delete: wire::MessageDelete,
        standing: Standing,
    ) -> Result<Accepted, Refusal> {
        let (room, id) = target(&delete.room_id, &delete.message_id)?;
        if !delete.for_everyone {
            return Err(Refusal::invalid(
                "forEveryone",
                "must be true: a message cannot be hidden from oneself alone yet",
            ));
        }
        permit(standing, Action::ChangeOwn)?;
        if let Some(row) = self.known_target(room, id).await?
            && row.sender != actor.user
        {
            permit(standing, Action::DeleteOthers)?;
        }
        let job = JobId::generate();
        self.submit(actor, job, room, Change::MessageDelete(delete), queued_about(id, job))
    }

    /// Accepts a reaction, or taking one back.
    pub async fn react(
        &self,
        actor: &Actor,
        react: wire::MessageReact,
        standing: Standing,
    ) -> Result<Accepted, Refusal> {
        let (room, id) = target(&react.room_id, &react.message_id)?;
        check_emoji(&react.emoji)?;
        permit(standing, Action::ChangeOwn)?;
        self.known_target(room, id).await?;
        let job = JobId::generate();
        self.submit(actor, job, room, Change::MessageReact(react), queued_about(id, job))
    }

    /// The message if it is stored already. One that is not may still be on its way; one that was
    /// taken back is refused. One of another room is treated as one that is nowhere: ids can be
    /// computed, and whoever is no member there must not learn that it exists.
    async fn known_target(&self, room: RoomId, id: MessageId) -> Result<Option<MessageRow>, Refusal> {
        let row = self.store().message(id).await.map_err(|error| error.refusal())?;
        match row.filter(|row| row.room == room) {
            Some(row) if row.deleted_at.is_some() => Err(Refusal::not_found("message")),
            row => Ok(row),
        }
    }
}

fn target(room_id: &str, message_id: &str) -> Result<(RoomId, MessageId), Refusal> {
    Ok((RoomId::parse("roomId", room_id)?, MessageId::parse("messageId", message_id)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Code;

    fn send() -> wire::MessageSend {
        wire::MessageSend {
            room_id: "00000000-0000-4000-8000-000000000001".into(),
            content: "hello".into(),
            client_msg_id: "m1".into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_plain_message_passes() {
        assert!(check(&send()).is_ok());
    }

    #[test]
    fn each_bad_field_is_named_and_the_message_too() {
        let bad = [
            (wire::MessageSend { room_id: String::new(), ..send() }, "roomId"),
            (wire::MessageSend { room_id: "'; DROP TABLE rooms; --".into(), ..send() }, "roomId"),
            (wire::MessageSend { content: " ".into(), ..send() }, "content"),
            (wire::MessageSend { r#type: Some("POEM".into()), ..send() }, "type"),
            (wire::MessageSend { reply_to: Some("x".into()), ..send() }, "replyTo"),
            (wire::MessageSend { mentions: vec!["x".into()], ..send() }, "mentions"),
            (wire::MessageSend { mentions: vec![send().room_id; 51], ..send() }, "mentions"),
            (wire::MessageSend { attachments: vec![wire::Attachment::default()], ..send() }, "attachments"),
        ];
        let attachment = |url: &str| wire::Attachment { url: url.into(), ..Default::default() };
        let attached = |it| (wire::MessageSend { attachments: vec![it], ..send() }, "attachments");
        let bad_attachments = [
            attached(attachment(" JavaScript:alert(1)")),
            attached(attachment("data:text/html,x")),
            attached(wire::Attachment { size_bytes: Some(-1), ..attachment("https://a.example/x") }),
            attached(wire::Attachment { width: Some(-1), ..attachment("https://a.example/x") }),
        ];
        for (message, field) in bad.into_iter().chain(bad_attachments) {
            let refusal = check(&message).expect_err(field);
            assert_eq!((refusal.code, refusal.field.as_deref()), (Code::InvalidPayload, Some(field)));
            assert_eq!(refusal.client_msg_id.as_deref(), Some("m1"));
        }
        let nameless = check(&wire::MessageSend { client_msg_id: String::new(), ..send() }).expect_err("refused");
        assert_eq!((nameless.field.as_deref(), nameless.client_msg_id), (Some("clientMsgId"), None));
    }

    #[test]
    fn large_content_is_too_large() {
        let refusal = check(&wire::MessageSend { content: "x".repeat(16_385), ..send() }).expect_err("refused");
        assert_eq!(refusal.code, Code::TooLarge);
    }
}
