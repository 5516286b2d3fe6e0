//! What a request's handler left of the body.
//!
//! A client that is answered while it still sends, and whose connection is then closed, never reads
//! the answer. The invariant: the rest is taken and dropped, so much and so long at most.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::header;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;

/// A longer rest is cut off.
const DISCARDED_BYTES: usize = 16 * 1024 * 1024;
/// So is what takes longer to arrive.
const DISCARD_LIMIT: Duration = Duration::from_secs(5);

/// The body of a request, shared by its handler and by us.
#[derive(Clone)]
struct Shared(Arc<Mutex<Incoming>>);

/// The body after its handler is done with it; nothing if there is none.
pub(crate) struct Unread(Option<Shared>);

/// Hands the request on with a body whose rest can be discarded.
pub(crate) fn watch(request: Request<Incoming>) -> (Request, Unread) {
    // Who waits for `100 Continue` sends nothing after a refusal.
    let is_asked_for = request.headers().contains_key(header::EXPECT);
    if request.body().is_end_stream() || is_asked_for {
        return (request.map(Body::new), Unread(None));
    }
    let (parts, body) = request.into_parts();
    let shared = Shared(Arc::new(Mutex::new(body)));
    (Request::from_parts(parts, Body::new(shared.clone())), Unread(Some(shared)))
}

impl Unread {
    /// Takes the rest and drops it.
    pub(crate) async fn discard(self) {
        let Some(mut body) = self.0 else { return };
        let rest = async {
            let mut discarded = 0;
            while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                discarded += frame.data_ref().map_or(0, Bytes::len);
                if discarded > DISCARDED_BYTES {
                    return;
                }
            }
        };
        // Over the time it is cut off.
        let _ = tokio::time::timeout(DISCARD_LIMIT, rest).await;
    }
}

impl http_body::Body for Shared {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut body = self.0.lock();
        if body.is_end_stream() {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}
