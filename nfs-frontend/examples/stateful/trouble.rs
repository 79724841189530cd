//! Panics and errors in the log, wherever they happen, as failures of the sequence that this thread plays.

use atoll_base::panic::text;
use std::cell::RefCell;
use std::fmt::Write as _;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

thread_local! {
    static SEEN: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn note(text: String) {
    SEEN.with_borrow_mut(|seen| {
        seen.get_or_insert(text);
    });
}

/// The first trouble since the last time this was asked.
pub(crate) fn take() -> Option<String> {
    SEEN.take()
}

/// Begins to watch.
pub(crate) fn watch() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
        note(format!("panic at {place}: {}", text(panic.payload())));
    }));
    tracing::subscriber::set_global_default(Errors).expect("nobody else has set one");
}

struct Errors;

struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _infallible = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut words = Words(String::new());
        event.record(&mut words);
        note(format!("logged as an error:{}", words.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
