//! What the administrator is told, and how often.

use super::world::World;
use atoll_proto::nfs3::{NfsStat3, StableHow};
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Errors that were logged, a line each.
#[derive(Clone, Default)]
struct Errors(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_of_now_and_then_and_does_not_hide_a_sick_one() {
    let errors = Errors::default();
    let _here = tracing::subscriber::set_default(errors.clone());
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    let refused = async || w.write(file, 0, &[1; 200_000], StableHow::FileSync).await.unwrap_err().status;
    let told = || std::mem::take(&mut *errors.0.lock().unwrap());
    w.blocks.fill(true);
    for _ in 0..100 {
        assert_eq!(refused().await, NfsStat3::NoSpc);
    }
    let first = told();
    assert!(first.len() == 1 && first[0].contains("disk is full"), "{first:?}");
    assert!(first[0].contains("suppressed=0"), "{first:?}");
    w.blocks.fail_puts(1);
    assert_eq!(refused().await, NfsStat3::Io);
    let sick = told();
    assert!(sick.len() == 1 && sick[0].contains("could not be stored"), "{sick:?}");
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(refused().await, NfsStat3::NoSpc);
    let second = told();
    assert!(second.len() == 1 && second[0].contains("suppressed=99"), "{second:?}");
}
