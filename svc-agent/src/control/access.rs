//! Who may do what: the one place where that is decided.

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::peer::Peer;
use super::routes::failure;

/// Whom the socket serves.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// The user that the agent runs as.
    pub agent_uid: u32,
    /// The socket's group.
    pub group: u32,
}

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    /// Nothing, whatever the socket's mode says.
    None,
    /// Look.
    Read,
    /// Change something too.
    Change,
}

impl Access {
    /// Changing is for root, reading also for the agent's user and the socket's group.
    pub fn rights(&self, peer: &Peer) -> Rights {
        if peer.uid == 0 {
            Rights::Change
        } else if peer.uid == self.agent_uid || peer.groups.contains(&self.group) {
            Rights::Read
        } else {
            Rights::None
        }
    }
}

impl Rights {
    /// What a request needs.
    fn needed(method: &Method) -> Self {
        if matches!(*method, Method::GET | Method::HEAD) { Self::Read } else { Self::Change }
    }
}

/// Answers 403 unless the peer may do what it asks for.
pub async fn check(rights: Rights, request: Request, next: Next) -> Response {
    if rights >= Rights::needed(request.method()) {
        return next.run(request).await;
    }
    let text = if rights == Rights::None {
        "you may not read here: be root or a member of the socket's group"
    } else {
        "you may read here but not change anything: be root"
    };
    failure(StatusCode::FORBIDDEN, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_changes_the_group_and_the_agent_read_others_get_nothing() {
        let access = Access { agent_uid: 990, group: 44 };
        let check = |uid, groups: &[u32], wanted| {
            assert_eq!(access.rights(&Peer { uid, groups: groups.to_vec() }), wanted, "uid {uid} groups {groups:?}");
        };
        check(0, &[0], Rights::Change);
        check(0, &[], Rights::Change);
        check(990, &[990], Rights::Read);
        check(1000, &[1000, 44], Rights::Read);
        check(1000, &[1000, 4, 440], Rights::None);
        check(65_534, &[0], Rights::None);
    }

    #[test]
    fn everything_but_get_and_head_is_a_change() {
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(Rights::needed(&method), Rights::Read);
        }
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS, Method::TRACE] {
            assert_eq!(Rights::needed(&method), Rights::Change, "{method}");
        }
    }
}
