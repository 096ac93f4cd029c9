use std::sync::atomic::AtomicU32;

use futures_util::FutureExt;
use innermesh_proto::limits;

use super::{tally::TOP, *};

/// Tokio's paused clock, which goes on when all wait.
struct PausedClock(tokio::time::Instant);

impl PausedClock {
    #[allow(clippy::disallowed_methods, reason = "paused")]
    fn new() -> Self {
        Self(tokio::time::Instant::now())
    }
}

#[async_trait::async_trait]
impl Clock for PausedClock {
    fn now(&self) -> Mono {
        self.0.elapsed()
    }
    fn wall_ms(&self) -> u64 {
        1_000 + u64::try_from(self.0.elapsed().as_millis()).unwrap()
    }
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

fn logger() -> QueryLogger {
    QueryLogger::new(Arc::new(PausedClock::new()), Tasks::default())
}

fn entry(name: &str, client: u8) -> LogEntry {
    LogEntry {
        client: IpAddr::from([10, 77, 0, client]),
        is_udp: true,
        name: name.parse().unwrap(),
        rtype: RecordType::A,
        rcode: 0,
        view: DnsView::Internal,
        origin: Some(Origin::Zone),
        elapsed: Duration::from_micros(7),
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_but_while_somebody_follows() {
    let log = logger();
    assert!(!log.is_on());
    log.note(entry("early.example", 1));
    let before = log.read();
    assert_eq!((before.is_on, before.next, before.total), (false, 0, 0));

    // One that follows and hears nothing comes back after a while.
    let first = log.follow(None).await;
    assert_eq!((first.is_on, first.entries.len(), first.next), (true, 0, 0));
    let followed = log.follow(Some(first.next));
    tokio::pin!(followed);
    assert!(followed.as_mut().now_or_never().is_none());
    log.note(entry("a.example", 1));
    log.note(entry("b.example", 2));
    let page = followed.await;
    let names: Vec<&str> = page.entries.iter().map(|it| it.name.as_str()).collect();
    assert_eq!((names, page.next), (vec!["a.example.", "b.example."], 2));
    assert_eq!(page.entries[0].elapsed_us, 7);
    // Between two of its requests it stays on.
    tokio::time::sleep(GRACE / 2).await;
    log.note(entry("c.example", 2));
    let page = log.follow(Some(2)).await;
    assert_eq!(page.entries.len(), 1);
    assert_eq!(page.entries[0].number, 2);

    tokio::time::sleep(GRACE * 3).await;
    assert!(!log.is_on());
    log.note(entry("late.example", 1));
    let after = log.read();
    assert_eq!((after.is_on, after.entries.len()), (false, 0));
    assert_eq!(after.next, 3, "numbers go on");
    // What was kept is gone, and the next one begins anew.
    let again = log.follow(Some(0)).now_or_never();
    assert!(again.is_none() && log.is_on());
    log.note(entry("d.example", 1));
    let page = log.read();
    assert_eq!((page.total, page.entries[0].number), (1, 3));
    assert_eq!(page.since_ms, Some(page.entries[0].at_ms));
}

#[tokio::test(start_paused = true)]
async fn who_follows_an_agent_that_began_anew_hears_what_is_new() {
    let log = logger();
    let followed = log.follow(Some(9_999));
    tokio::pin!(followed);
    assert!(followed.as_mut().now_or_never().is_none());
    log.note(entry("a.example", 1));
    assert_eq!(followed.await.entries.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn it_is_on_as_long_as_one_of_several_follows() {
    let log = logger();
    let ended = Arc::new(AtomicU32::new(0));
    let other = log.follow(None);
    for _ in 0..5 {
        let followed = log.follow(None).await;
        assert!(followed.is_on);
        ended.fetch_add(1, Ordering::Relaxed);
    }
    assert!(other.await.is_on);
    assert_eq!(ended.load(Ordering::Relaxed), 5);
}

#[tokio::test(start_paused = true)]
async fn entries_and_counts_have_their_bounds_and_the_frequent_stay() {
    let log = logger();
    assert!(log.follow(None).now_or_never().is_none());
    // So many that names are left over when counts were last lowered.
    let count = 3 * limits::QUERY_LOG_ENTRIES + 100;
    for n in 0..count {
        log.note(entry("often.example", 1));
        log.note(LogEntry {
            rcode: 3,
            origin: None,
            ..entry(&format!("n{n}.example"), u8::try_from(n % 200).unwrap())
        });
    }
    let page = log.read();
    assert_eq!(page.total, 2 * count as u64);
    assert_eq!(page.entries.len(), limits::QUERY_LOG_PAGE);
    assert_eq!(page.names[0].what, "often.example. A");
    assert!(page.names[0].count + page.too_low_by >= count as u64);
    assert_eq!(page.clients[0].what, "10.77.0.1");
    assert_eq!((page.names.len(), page.clients.len()), (TOP, TOP));
    let rcodes: Vec<(&str, u64)> = page
        .rcodes
        .iter()
        .map(|t| (t.what.as_str(), t.count))
        .collect();
    assert_eq!(
        rcodes,
        [("NOERROR", count as u64), ("NXDOMAIN", count as u64)]
    );
    assert_eq!(page.origins.len(), 2);
    // From the oldest that is there on, by pages.
    let state = log.0.state();
    let kept = state.kept.as_ref().unwrap();
    let first = kept.page(0, state.next);
    assert_eq!(first.entries.len(), limits::QUERY_LOG_PAGE);
    let numbers: Vec<u64> = first.entries.iter().map(|it| it.number).collect();
    assert!(numbers.is_sorted() && Some(first.next - 1) == numbers.last().copied());
    kept.assert_bounded();
    let last = kept.page(state.next - 1, state.next);
    assert_eq!((last.entries.len(), last.next), (1, state.next));
}

#[tokio::test(start_paused = true)]
async fn long_names_fill_it_by_bytes() {
    let log = logger();
    assert!(log.follow(None).now_or_never().is_none());
    let long = format!("{0}.{0}.{0}.{0}", "x".repeat(60));
    for _ in 0..2 * limits::QUERY_LOG_ENTRIES {
        log.note(entry(&long, 1));
    }
    let state = log.0.state();
    let kept = state.kept.as_ref().unwrap();
    kept.assert_bounded();
    let entries = kept.entries_of(entry(&long, 1).client);
    assert!(entries > 1000 && entries < limits::QUERY_LOG_ENTRIES);
}

#[tokio::test(start_paused = true)]
async fn one_that_asks_much_takes_neither_place_nor_count_from_another() {
    let log = logger();
    assert!(log.follow(None).now_or_never().is_none());
    for _ in 0..100 {
        log.note(entry("photos.example", 2));
    }
    let flood = 3 * limits::QUERY_LOG_ENTRIES;
    for n in 0..flood {
        // As many addresses as it likes are one source.
        let client = u128::from_be_bytes([0xfd; 16]) ^ (n as u128 % 5000);
        log.note(LogEntry {
            client: IpAddr::from(client.to_be_bytes()),
            ..entry(&format!("n{n}.example"), 1)
        });
    }
    let page = log.0.state().page(|kept| kept.page(0, 0));
    let of_other = page
        .entries
        .iter()
        .filter(|it| it.name == "photos.example.");
    assert_eq!(of_other.count(), 100);
    assert_eq!(page.entries[0].number, 0);
    let page = log.read();
    let counted = &page.names[0];
    assert_eq!(
        (counted.what.as_str(), counted.count),
        ("photos.example. A", 100)
    );
    let counted = &page.clients[0];
    assert_eq!((counted.what.as_str(), counted.count), ("10.77.0.2", 100));
    log.0.state().kept.as_ref().unwrap().assert_bounded();
    // Who follows hears what others ask meanwhile, and that something is missing.
    log.note(entry("next.example", 2));
    let next = log.follow(Some(100)).await;
    assert!(next.entries[0].number > 100);
    assert_eq!(log.follow(Some(100 + flood as u64)).await.entries.len(), 1);
}
