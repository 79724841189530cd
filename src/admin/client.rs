//! The caller's side, for the subcommands that ask a running server.

use crate::data_dir::{self, SocketPath};
use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use tokio::net::UnixStream;

/// Longest line of a streamed answer, bytes: a finding with a path.
const LINE_MAX: usize = 1 << 20;

/// A connection to the admin API of the server that uses a data directory.
pub(crate) struct Client {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects to the server that uses `dir`.
    pub(crate) async fn connect(dir: &Path) -> Result<Self> {
        let socket = data_dir::admin_socket(dir);
        let unanswered =
            || format!("no atoll server answers for {} (start one with `atoll serve {0}`)", dir.display());
        let short = SocketPath::of(&socket).with_context(unanswered)?;
        let stream = UnixStream::connect(short.path()).await.with_context(unanswered)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// One call with a JSON answer.
    pub(crate) async fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T> {
        let response = self.send(method, path, body).await?;
        let text = response.into_body().collect().await?.to_bytes();
        Ok(serde_json::from_slice(&text)?)
    }

    /// One call whose answer is a line of JSON after the other; `each` gets them as they come.
    pub(crate) async fn stream<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        mut each: impl FnMut(T),
    ) -> Result<()> {
        let mut body = self.send(method, path, None::<&()>).await?.into_body();
        let mut pending = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            pending.extend_from_slice(&data);
            while let Some(end) = pending.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                each(serde_json::from_slice(&line)?);
            }
            if pending.len() > LINE_MAX {
                bail!("the server's answer has a line of more than {LINE_MAX} bytes");
            }
        }
        Ok(())
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response<Incoming>> {
        let body = match body {
            Some(body) => Bytes::from(serde_json::to_vec(body)?),
            None => Bytes::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "atoll")
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        let response = self.sender.send_request(request).await.context("the server closed the connection")?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.into_body().collect().await?.to_bytes();
        #[derive(serde::Deserialize)]
        struct Failure {
            error: String,
        }
        Err(match serde_json::from_slice::<Failure>(&text) {
            Ok(failure) => anyhow!(failure.error),
            Err(_) => anyhow!("the server answered {status}"),
        })
    }
}
