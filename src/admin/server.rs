//! The server's side of the admin API.

use super::states::Range;
use crate::data_dir::SocketPath;
use crate::service::Service;
use anyhow::{Context, Result};
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

/// Findings of a scrub that wait to be sent.
const SCRUB_QUEUE: usize = 64;

/// Serves the API on the socket of the data directory.
pub(crate) async fn serve_unix(service: Arc<Service>, socket: &Path, stop: CancellationToken) -> Result<()> {
    // A socket left by a process that was killed; the directory's lock says that nobody uses it.
    if let Err(e) = std::fs::remove_file(socket)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        return Err(e).with_context(|| format!("cannot replace {}", socket.display()));
    }
    let listener = bind_private(socket)?;
    tokio::spawn(async move {
        let served =
            axum::serve(listener, router(service)).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the admin socket is no longer served");
        }
    });
    Ok(())
}

/// Binds the socket so that nobody but the owner can ever connect, not even between bind and chmod.
fn bind_private(socket: &Path) -> Result<UnixListener> {
    let old = rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let listener = SocketPath::of(socket).and_then(|short| UnixListener::bind(short.path()));
    rustix::process::umask(old);
    listener.with_context(|| format!("cannot listen on {}", socket.display()))
}

/// Serves the API on TCP to callers with the token.
pub(crate) fn serve_tcp(
    service: Arc<Service>,
    listener: TcpListener,
    token: String,
    stop: CancellationToken,
) {
    let expected: Arc<str> = format!("Bearer {token}").into();
    let app = router(service).layer(middleware::from_fn_with_state(expected, require_token));
    tokio::spawn(async move {
        let served = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the admin port is no longer served");
        }
    });
}

async fn require_token(State(expected): State<Arc<str>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).map_or(&b""[..], |v| v.as_bytes());
    if same(given, expected.as_bytes()) {
        next.run(request).await
    } else {
        let text =
            "this needs the token in admin.token of the data directory, as `Authorization: Bearer TOKEN`";
        (StatusCode::UNAUTHORIZED, Json(Failure { error: text.to_owned() })).into_response()
    }
}

/// Compares in time that does not depend on where the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (x, y)| differs | (x ^ y)) == 0
}

fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/exports", get(exports).put(put_export).delete(remove_export))
        .route("/v1/volumes", get(volumes).post(create_volume))
        .route("/v1/clients", get(clients).delete(evict_client))
        .route("/v1/opens", get(opens))
        .route("/v1/locks", get(locks))
        .route("/v1/delegations", get(delegations))
        .route("/v1/copies", get(copies))
        .route("/v1/scrub", axum::routing::post(scrub))
        .with_state(service)
}

#[derive(Serialize)]
struct Failure {
    error: String,
}

/// A refusal as the caller sees it. What the caller asked for was wrong, or cannot be done now.
struct Refusal(anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, Json(Failure { error: format!("{:#}", self.0) })).into_response()
    }
}

async fn status(State(service): State<Arc<Service>>) -> Result<Response, Refusal> {
    Ok(Json(service.report().await?).into_response())
}

async fn exports(State(service): State<Arc<Service>>) -> Result<Response, Refusal> {
    Ok(Json(service.node.exports().await?).into_response())
}

#[derive(Deserialize)]
struct ExportBody {
    words: String,
}

async fn put_export(
    State(service): State<Arc<Service>>,
    Json(body): Json<ExportBody>,
) -> Result<Response, Refusal> {
    Ok(Json(service.node.put_export(body.words.parse()?).await?).into_response())
}

#[derive(Deserialize)]
struct ExportPath {
    path: String,
}

async fn remove_export(
    State(service): State<Arc<Service>>,
    Query(query): Query<ExportPath>,
) -> Result<Response, Refusal> {
    service.node.remove_export(&query.path).await?;
    Ok(Json(()).into_response())
}

async fn volumes(State(service): State<Arc<Service>>) -> Result<Response, Refusal> {
    Ok(Json(service.node.volumes().await?).into_response())
}

#[derive(Deserialize)]
struct VolumeBody {
    name: String,
}

async fn create_volume(
    State(service): State<Arc<Service>>,
    Json(body): Json<VolumeBody>,
) -> Result<Response, Refusal> {
    service.node.create_volume(&body.name).await?;
    Ok(Json(()).into_response())
}

async fn clients(
    State(service): State<Arc<Service>>,
    Query(range): Query<Range>,
) -> Result<Response, Refusal> {
    Ok(Json(service.list_clients(&range).await?).into_response())
}

#[derive(Deserialize)]
struct ClientName {
    id: String,
}

async fn evict_client(
    State(service): State<Arc<Service>>,
    Query(query): Query<ClientName>,
) -> Result<Response, Refusal> {
    Ok(Json(service.evict_client(&query.id).await?).into_response())
}

async fn opens(State(service): State<Arc<Service>>, Query(range): Query<Range>) -> Result<Response, Refusal> {
    Ok(Json(service.list_opens(&range).await?).into_response())
}

async fn locks(State(service): State<Arc<Service>>, Query(range): Query<Range>) -> Result<Response, Refusal> {
    Ok(Json(service.list_locks(&range).await?).into_response())
}

async fn copies(
    State(service): State<Arc<Service>>,
    Query(range): Query<Range>,
) -> Result<Response, Refusal> {
    Ok(Json(service.list_copies(&range).await?).into_response())
}

async fn delegations(
    State(service): State<Arc<Service>>,
    Query(range): Query<Range>,
) -> Result<Response, Refusal> {
    Ok(Json(service.list_delegations(&range).await?).into_response())
}

async fn scrub(State(service): State<Arc<Service>>) -> Response {
    let (lines, mut received) = tokio::sync::mpsc::channel(SCRUB_QUEUE);
    tokio::spawn(async move { service.node.scrub(lines).await });
    let stream = futures_util::stream::poll_fn(move |cx| {
        received.poll_recv(cx).map(|line| {
            line.map(|line| {
                let mut text = serde_json::to_vec(&line)?;
                text.push(b'\n');
                Ok::<_, serde_json::Error>(Bytes::from(text))
            })
        })
    });
    Response::new(Body::from_stream(stream))
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn tokens_are_compared_whole() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd"));
        assert!(!same(b"abc", b"abcd"));
        assert!(!same(b"", b"a"));
    }
}
