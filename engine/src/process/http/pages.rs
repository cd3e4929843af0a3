//! What is answered under which path.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;

use super::metrics;
use super::reports::{NoReport, Reports};
use crate::process::version::{COMMIT, FEATURES, RELEASE};
use crate::server::status::report::StatsReport;

const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Status, type and text of an answer.
type Page = (StatusCode, &'static str, String);

/// Answers one request.
pub(super) async fn answer(request: &Request<Incoming>, reports: &Reports) -> Response<Full<Bytes>> {
    let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, content_type, text) = match request.uri().path() {
        "/metrics" | "/healthz" | "/readyz" | "/version" if !is_get => plain(
            StatusCode::METHOD_NOT_ALLOWED,
            "this page can be got, and nothing else",
        ),
        "/metrics" => metrics(reports.ask().await.as_deref().map_err(|reason| *reason)),
        "/healthz" => healthz(reports.ask().await.err()),
        "/readyz" => readyz(reports.ask().await.as_deref().map_err(|reason| *reason)),
        "/version" => (StatusCode::OK, JSON, version()),
        _ => plain(
            StatusCode::NOT_FOUND,
            "there is no such page; there are /metrics, /healthz, /readyz and /version",
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

fn plain(status: StatusCode, sentence: &str) -> Page {
    (status, PLAIN, format!("{sentence}\n"))
}

fn metrics(report: Result<&StatsReport, NoReport>) -> Page {
    match report {
        Ok(report) => (StatusCode::OK, METRICS, metrics::text(report)),
        Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, reason.sentence()),
    }
}

/// Whether the process should be left alone. A long recovery is no reason to kill it.
fn healthz(no_report: Option<NoReport>) -> Page {
    match no_report {
        None => plain(StatusCode::OK, "ok"),
        Some(NoReport::Starting) => plain(StatusCode::OK, NoReport::Starting.sentence()),
        Some(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, reason.sentence()),
    }
}

/// Whether clients should be sent here.
fn readyz(report: Result<&StatsReport, NoReport>) -> Page {
    let unready = |sentence: &str| plain(StatusCode::SERVICE_UNAVAILABLE, sentence);
    let report = match report {
        Ok(report) => report,
        Err(reason) => return unready(reason.sentence()),
    };
    if report.cores.iter().any(|core| core.draining) {
        return unready("the node is draining");
    }
    match report.cores.iter().find(|core| core.log.failed) {
        Some(failed) => unready(&format!(
            "a write to the log of core {} failed; check the disk and restart the node",
            failed.core
        )),
        None => plain(StatusCode::OK, "ok"),
    }
}

fn version() -> String {
    let version = json!({ "version": RELEASE, "commit": COMMIT, "features": FEATURES });
    format!("{version}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::http::metrics::tests::two_cores;

    #[test]
    fn health_tells_a_start_from_a_fault() {
        assert_eq!(healthz(None), plain(StatusCode::OK, "ok"));
        assert_eq!(healthz(Some(NoReport::Starting)).0, StatusCode::OK);
        for reason in [NoReport::Hung, NoReport::Ended] {
            let (status, _, text) = healthz(Some(reason));
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(text.len() > 10, "it says why: {text}");
        }
    }

    #[test]
    fn only_a_node_that_serves_everything_is_ready() {
        let mut report = two_cores();
        assert_eq!(readyz(Ok(&report)), plain(StatusCode::OK, "ok"));
        report.cores[1].log.failed = true;
        let (status, _, text) = readyz(Ok(&report));
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("core 1"), "{text}");
        report.cores[0].draining = true;
        assert!(readyz(Ok(&report)).2.contains("draining"));
        for reason in [NoReport::Starting, NoReport::Hung, NoReport::Ended] {
            assert_eq!(readyz(Err(reason)).0, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(metrics(Err(reason)).0, StatusCode::SERVICE_UNAVAILABLE);
        }
    }
}
