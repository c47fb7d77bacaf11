//! The web page of the admin port: static files that are compiled in. They hold no data and need no token; what the page
//! shows it asks the API for, as whoever signed in to it.

use axum::{
    Router,
    extract::Path,
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::problem::Problem;

/// No script, style, font, image or answer of anybody else, nothing inline, no frame around it, and no form that a browser
/// sends by itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

const PAGE: Asset = Asset { name: "", media: HTML, text: include_str!("../../assets/page/index.html") };
/// What the page does at first: ask for a token, or for the status.
const WITH_TOKENS: &str = "data-auth=\"token\"";
const WITHOUT_TOKENS: &str = "data-auth=\"none\"";
const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

const ASSETS: [Asset; 6] = [
    Asset { name: "page.css", media: STYLE, text: include_str!("../../assets/page/page.css") },
    Asset { name: "main.js", media: SCRIPT, text: include_str!("../../assets/page/main.js") },
    Asset { name: "api.js", media: SCRIPT, text: include_str!("../../assets/page/api.js") },
    Asset { name: "charts.js", media: SCRIPT, text: include_str!("../../assets/page/charts.js") },
    Asset { name: "view.js", media: SCRIPT, text: include_str!("../../assets/page/view.js") },
    Asset { name: "icon.svg", media: "image/svg+xml", text: include_str!("../../assets/page/icon.svg") },
];

/// A file of the page.
struct Asset {
    name: &'static str,
    media: &'static str,
    text: &'static str,
}

impl IntoResponse for &Asset {
    fn into_response(self) -> Response {
        file(self.media, self.text)
    }
}

fn file(media: &'static str, text: impl IntoResponse) -> Response {
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, media),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    (headers, text).into_response()
}

/// `/` and `/assets/…`; the page asks for a token first if the API wants one.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(tokens: bool) -> Router<S> {
    let page = if tokens { PAGE.text.to_owned() } else { PAGE.text.replace(WITH_TOKENS, WITHOUT_TOKENS) };
    Router::new().route("/", get(async move || file(PAGE.media, page))).route("/assets/{name}", get(asset))
}

async fn asset(Path(name): Path<String>) -> Result<&'static Asset, Problem> {
    let missing = || Problem::new(StatusCode::NOT_FOUND, "no_such_path", "there is nothing here; the page is at /");
    ASSETS.iter().find(|asset| asset.name == name).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_no_other_host_and_holds_nothing_inline() {
        for asset in ASSETS.iter().chain([&PAGE]) {
            let text = asset.text.replace("http://www.w3.org/2000/svg", "");
            for foreign in ["http:", "https:", "//cdn", "@import", "url(", "innerHTML", "eval("] {
                assert!(!text.contains(foreign), "{}: {foreign}", asset.name);
            }
        }
        for inline in ["<style", " style=", " onclick", " onload", "javascript:"] {
            assert!(!PAGE.text.contains(inline), "{inline}");
        }
        assert_eq!(PAGE.text.matches(WITH_TOKENS).count(), 1);
        assert_eq!(
            PAGE.text.matches("<script").count(),
            PAGE.text.matches("<script type=\"module\" src=\"assets/").count()
        );
    }

    #[test]
    fn every_file_that_the_page_asks_for_is_there() {
        let asked = PAGE.text.split("\"assets/").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
        let imported = ASSETS.iter().flat_map(|asset| asset.text.split("from \"./").skip(1));
        let imported = imported.map(|rest| rest.split('"').next().unwrap().to_owned());
        for name in asked.chain(imported) {
            assert!(ASSETS.iter().any(|asset| asset.name == name), "{name}");
        }
    }
}
