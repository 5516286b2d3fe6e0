//! The page at `/` and its files, compiled in.
//!
//! The invariant: what is served here is the same for everybody and holds no secret.

use axum::Router;
use axum::response::IntoResponse as _;
use axum::routing::get;
use http::header;

macro_rules! files {
    ($($address:literal: $file:literal, $kind:literal;)*) => {
        &[$(($address, include_str!(concat!("../../../web/", $file)), $kind)),*]
    };
}

/// Address, text, media type.
const FILES: &[(&str, &str, &str)] = files! {
    "/": "index.html", "text/html; charset=utf-8";
    "/style.css": "style.css", "text/css; charset=utf-8";
    "/room.css": "room.css", "text/css; charset=utf-8";
    "/api.js": "api.js", "text/javascript; charset=utf-8";
    "/app.js": "app.js", "text/javascript; charset=utf-8";
    "/connection.js": "connection.js", "text/javascript; charset=utf-8";
    "/dom.js": "dom.js", "text/javascript; charset=utf-8";
    "/room.js": "room.js", "text/javascript; charset=utf-8";
    "/sender.js": "sender.js", "text/javascript; charset=utf-8";
    "/state.js": "state.js", "text/javascript; charset=utf-8";
    "/sync.js": "sync.js", "text/javascript; charset=utf-8";
    "/view.js": "view.js", "text/javascript; charset=utf-8";
    "/words.js": "words.js", "text/javascript; charset=utf-8";
};

/// What the page says of itself in a `meta`, and who may frame it, which only a header can say.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Routes for all files.
pub(crate) fn router() -> Router {
    FILES.iter().fold(Router::new(), |router, (address, text, kind)| {
        let headers = [
            (header::CONTENT_TYPE, *kind),
            (header::CACHE_CONTROL, "no-cache"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_FRAME_OPTIONS, "DENY"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
        ];
        router.route(address, get(move || async move { (headers, *text).into_response() }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_and_its_headers_have_one_policy() {
        let (_, page, _) = FILES[0];
        let own = page.split("Content-Security-Policy\" content=\"").nth(1).and_then(|rest| rest.split('"').next());
        assert_eq!(own, POLICY.strip_suffix("; frame-ancestors 'none'"));
    }

    #[test]
    fn every_file_the_page_asks_for_is_there() {
        let has = |name: &str| FILES.iter().any(|(address, ..)| address.strip_prefix('/') == Some(name));
        for (_, text, _) in FILES {
            let after = |mark: &str| text.split(mark).skip(1).map(str::to_owned).collect::<Vec<_>>();
            for rest in after("from './").iter().chain(&after("src=\"")).chain(&after("rel=\"stylesheet\" href=\"")) {
                let name = rest.split(['\'', '"']).next().unwrap_or_default();
                assert!(has(name), "{name} is not served");
            }
        }
    }
}
