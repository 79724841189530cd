//! Futures that run to their end even if nobody waits for it any more.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

type Inner<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Polls its future in place; if it is dropped before the end, a task finishes it.
pub(crate) struct Shield<T: Send + 'static>(Option<Inner<T>>);

/// See [`Shield`].
pub(crate) fn shield<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Shield<T> {
    Shield(Some(Box::pin(future)))
}

impl<T: Send + 'static> Future for Shield<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let inner = self.0.as_mut().expect("not polled after its end");
        let result = inner.as_mut().poll(cx);
        if result.is_ready() {
            self.0 = None;
        }
        result
    }
}

impl<T: Send + 'static> Drop for Shield<T> {
    fn drop(&mut self) {
        if let Some(rest) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn goes_on_after_it_was_dropped() {
        let (go, wait) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel::<u32>();
        let mut work = shield(async move {
            wait.await.unwrap();
            tell.send(7).unwrap();
        });
        assert!((&mut work).now_or_never().is_none());
        drop(work);
        go.send(()).unwrap();
        assert_eq!(told.await, Ok(7));
    }
}
