//! Who may do what in a room: pure functions, asked by socket, REST and processor alike.

use crate::room::{Role, RoomKind};

/// Something a member may want to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read messages and follow the room live.
    Read,
    /// Send a message.
    Send,
    /// Change or take back one's own message, react.
    ChangeOwn,
    /// Take back somebody else's message for everyone.
    DeleteOthers,
    /// Add members.
    AddMembers,
    /// Remove somebody of that role.
    Remove(Role),
    /// Stop being a member.
    Leave,
    /// Change the title.
    UpdateRoom,
}

/// The answer to "may I?".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Allowed,
    /// A member who lacks the right: `FORBIDDEN`.
    Forbidden,
    /// Not a member, who must not learn that the room exists: `NOT_FOUND`.
    Unknown,
}

/// Judges an action in a room of `kind` by somebody with `role` there (`None`: no member).
pub fn judge(kind: RoomKind, role: Option<Role>, action: Action) -> Verdict {
    let Some(role) = role else { return Verdict::Unknown };
    let allowed = match action {
        Action::Read | Action::Send | Action::ChangeOwn => true,
        Action::DeleteOthers | Action::AddMembers | Action::UpdateRoom => {
            kind == RoomKind::Group && role >= Role::Admin
        }
        Action::Remove(target) => kind == RoomKind::Group && role >= Role::Admin && role > target,
        // Ownership has to pass on before its holder can go.
        Action::Leave => kind == RoomKind::Group && role < Role::Owner,
    };
    if allowed { Verdict::Allowed } else { Verdict::Forbidden }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const NOBODY: Option<Role> = None;
    const MEMBER: Option<Role> = Some(Role::Member);
    const ADMIN: Option<Role> = Some(Role::Admin);
    const OWNER: Option<Role> = Some(Role::Owner);

    #[rstest]
    //                                    group: member, admin, owner     direct: member
    #[case(Action::Read, [true, true, true], true)]
    #[case(Action::Send, [true, true, true], true)]
    #[case(Action::ChangeOwn, [true, true, true], true)]
    #[case(Action::DeleteOthers, [false, true, true], false)]
    #[case(Action::AddMembers, [false, true, true], false)]
    #[case(Action::Remove(Role::Member), [false, true, true], false)]
    #[case(Action::Remove(Role::Admin), [false, false, true], false)]
    #[case(Action::Remove(Role::Owner), [false, false, false], false)]
    #[case(Action::Leave, [true, true, false], false)]
    #[case(Action::UpdateRoom, [false, true, true], false)]
    fn the_table(#[case] action: Action, #[case] group: [bool; 3], #[case] direct: bool) {
        for (role, allowed) in [MEMBER, ADMIN, OWNER].into_iter().zip(group) {
            assert_eq!(judge(RoomKind::Group, role, action) == Verdict::Allowed, allowed, "{role:?}");
        }
        assert_eq!(judge(RoomKind::Direct, MEMBER, action) == Verdict::Allowed, direct);
        for kind in [RoomKind::Group, RoomKind::Direct] {
            assert_eq!(judge(kind, NOBODY, action), Verdict::Unknown);
        }
    }
}
