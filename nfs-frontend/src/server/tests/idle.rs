//! Thousands of connections that do nothing cost next to nothing.

use super::*;

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections() {
    // Both ends are in this process, and other tests run beside this one.
    let files = super::super::raise_open_files();
    let count = 10_000.min((files.saturating_sub(1000) / 2) as usize);
    assert!(count >= 9_000, "{files} files are too few to test with");
    let server = start(Limits::default());
    let mut busy = server.connect().await;
    busy.call(1, procedure::ECHO, &vec![0; 1 << 20]).await;
    let before = resident();
    let mut idle = Vec::new();
    for i in 0..count {
        // Sockets of the standard library: no memory of the client's side is counted.
        let socket = std::net::TcpStream::connect(server.address).unwrap();
        // Each has been used: most by a small call, some by a large one.
        let mut client = &socket;
        let body = vec![1; if i % 100 == 0 { 300_000 } else { 100 }];
        std::io::Write::write_all(&mut client, &record(1, procedure::ECHO, &body)).unwrap();
        let mut reply = vec![0; 28 + body.len()];
        std::io::Read::read_exact(&mut client, &mut reply).unwrap();
        idle.push(socket);
    }
    server.until(|m| &m.connections_now, count as u64 + 1).await;
    let each = resident().saturating_sub(before) / count as u64;
    println!("{count} idle connections: {each} bytes each");
    assert!(each < 10 * 1024, "{each} bytes for each idle connection");
    // Another client does not notice.
    let begin = std::time::Instant::now();
    for xid in 0..100 {
        busy.call(xid, procedure::NULL, &[]).await;
    }
    println!("100 calls beside them: {:?}", begin.elapsed());
    drop(idle);
    server.until(|m| &m.connections_now, 1).await;
    assert_eq!(server.finish().await, Stopped { cut_off: 0 });
}

#[tokio::test]
async fn a_connection_that_nobody_uses_any_more_is_reclaimed() {
    let server = start(Limits { idle_timeout: Duration::from_millis(300), ..Limits::default() });
    let mut idle = server.connect().await;
    idle.call(1, procedure::NULL, &[]).await;
    // A call in progress is not idleness.
    let mut waiting = server.connect().await;
    waiting.send(&record(1, procedure::GATED, &[])).await;
    idle.expect_closed().await;
    server.subject.gate.open(1);
    waiting.reply().await;
    waiting.expect_closed().await;
}
