//! The keeping of a host's resolver that loses its settings in every way.

use std::{path::PathBuf, sync::PoisonError};

use async_trait::async_trait;

use super::*;
use crate::{
    control::testing::TokioClock,
    host::{
        resolver::{HostResolver, LookUp, ResolverError, Unmanaged},
        system,
    },
    node::follow::resolver::about::Name,
};

/// A host, as its resolver is.
struct Resolver {
    state: Mutex<State>,
    signal: Notify,
}

struct State {
    /// What would be used; none where systemd-resolved is away.
    method: Option<Method>,
    away: bool,
    /// What asks the agent.
    set: Option<Method>,
    refuses: Option<String>,
    applied: u32,
    restored: u32,
    looked_up: Vec<String>,
    /// What libc finds beside what is set.
    libc: Option<LookUp>,
}

impl Resolver {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                method: Some(Method::Resolved),
                away: false,
                set: None,
                refuses: None,
                applied: 0,
                restored: 0,
                looked_up: Vec::new(),
                libc: None,
            }),
            signal: Notify::new(),
        })
    }

    /// What asks the agent, and how often it was taken back.
    fn outcome(&self) -> (Option<Method>, u32) {
        let state = self.state();
        (state.set, state.restored)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl HostResolver for Resolver {
    fn left_alone(&self) -> Option<String> {
        None
    }

    async fn choose(&self) -> Choice {
        let state = self.state();
        Choice {
            method: state.method,
            why: "it is there".into(),
            resolved_is_away: state.away,
        }
    }

    async fn apply(&self, plan: &ResolverPlan) -> Result<Applied, ResolverError> {
        let mut state = self.state();
        assert_eq!(plan.domain, "in.example.org");
        if let Some(why) = &state.refuses {
            return Err(ResolverError::ByHand(why.clone()));
        }
        let method = state.method.ok_or(ResolverError::ByHand("none".into()))?;
        let is_new = state.set != Some(method);
        state.set = Some(method);
        state.applied += u32::from(is_new);
        Ok(Applied {
            method,
            why: "it is there".into(),
            is_new,
        })
    }

    async fn restore(&self, interface: &str) -> Result<(), ResolverError> {
        assert_eq!(interface, "im0");
        let mut state = self.state();
        state.set = None;
        state.restored += 1;
        Ok(())
    }

    async fn changed(&self) {
        self.signal.notified().await;
    }

    async fn look_up(&self, name: &str) -> LookUp {
        let mut state = self.state();
        state.looked_up.push(name.to_owned());
        let others = state.libc.clone().unwrap_or(LookUp::Nothing);
        match (name, state.set) {
            ("a.in.example.org", Some(_)) if state.libc.is_none() => {
                LookUp::Found(vec!["10.77.0.2".parse().unwrap()])
            }
            ("acme.in.example.org", Some(_)) => LookUp::Found(vec!["10.77.0.53".parse().unwrap()]),
            ("a.in.example.org", _) => others,
            _ => LookUp::Nothing,
        }
    }
}

fn about(served: bool) -> About {
    let name = |name: &str, ip: &str| Name {
        name: name.into(),
        addresses: vec![ip.parse().unwrap()],
    };
    About {
        plan: served.then(|| ResolverPlan {
            interface: "im0".into(),
            servers: vec!["10.77.0.53".parse().unwrap()],
            domain: "in.example.org".into(),
            reverse: vec![],
        }),
        domain: "in.example.org".into(),
        own: name("a.in.example.org", "10.77.0.2"),
        acme: name("acme.in.example.org", "10.77.0.53"),
    }
}

struct Running {
    keeper: Arc<ResolverKeeper>,
    served: Arc<Mutex<bool>>,
    news: Arc<Notify>,
}

fn keeper(resolver: Arc<dyn HostResolver>, wanted: bool) -> Running {
    let mut host = system::host(PathBuf::new());
    host.clock = Arc::new(TokioClock);
    host.resolver = resolver;
    let (news, served) = (Arc::new(Notify::new()), Arc::new(Mutex::new(true)));
    let answers = served.clone();
    let keeper = ResolverKeeper::new(&host, wanted, "im0", news.clone(), move || {
        about(*answers.lock().unwrap())
    });
    Running {
        keeper: Arc::new(keeper),
        served,
        news,
    }
}

impl Running {
    fn start(self) -> Self {
        tokio::spawn(self.keeper.clone().run());
        self
    }

    fn works(&self) -> Option<bool> {
        self.keeper.status().works
    }
}

/// Time goes by, and what waits for it runs.
async fn after(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn it_is_set_at_once_and_libc_is_asked_whether_that_works() {
    let host = Resolver::new();
    let running = keeper(host.clone(), true).start();
    after(1).await;
    let status = running.keeper.status();
    assert_eq!(
        (status.managed, status.method, status.works, status.error),
        (true, Some(Method::Resolved), Some(true), None)
    );
    assert_eq!(running.keeper.finding(), None);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_set_before_the_agent_answers_for_names() {
    let host = Resolver::new();
    let running = keeper(host.clone(), true);
    *running.served.lock().unwrap() = false;
    let running = running.start();
    after(31).await;
    assert_eq!((host.state().set, running.keeper.plan()), (None, None));
    assert_eq!(running.keeper.finding(), None);
    *running.served.lock().unwrap() = true;
    after(30).await;
    assert_eq!(host.state().set, Some(Method::Resolved));
}

#[tokio::test(start_paused = true)]
async fn it_is_taken_back_where_the_agent_answers_no_more() {
    let host = Resolver::new();
    let running = keeper(host.clone(), true).start();
    after(5).await;
    *running.served.lock().unwrap() = false;
    after(61).await;
    assert_eq!(host.outcome(), (None, 1));
    assert_eq!(running.keeper.status().method, None);
}

#[tokio::test(start_paused = true)]
async fn settings_that_are_lost_without_a_word_are_back_within_half_a_minute() {
    let host = Resolver::new();
    let running = keeper(host.clone(), true).start();
    after(5).await;
    host.state().set = None;
    after(20).await;
    assert_eq!(host.state().applied, 1);
    after(6).await;
    assert_eq!((host.state().applied, running.works()), (2, Some(true)));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_resolver_and_a_new_interface_are_set_at_once() {
    let host = Resolver::new();
    let running = keeper(host.clone(), true).start();
    after(5).await;
    host.state().set = None;
    host.signal.notify_one();
    after(1).await;
    assert_eq!(host.state().applied, 2);
    host.state().set = None;
    running.news.notify_one();
    after(1).await;
    assert_eq!(host.state().applied, 3);
}

#[tokio::test(start_paused = true)]
async fn while_systemd_resolved_is_restarted_no_other_method_is_taken() {
    let host = Resolver::new();
    let running = keeper(host.clone(), true).start();
    after(5).await;
    {
        let mut state = host.state();
        (state.set, state.method, state.away) = (None, Some(Method::ResolvConf), true);
    }
    host.signal.notify_one();
    after(50).await;
    assert_eq!(host.state().set, None);
    let finding = running.keeper.finding().unwrap();
    assert!(
        finding.text.contains("systemd-resolved doesn't run"),
        "{finding:?}"
    );
    {
        let mut state = host.state();
        (state.method, state.away) = (Some(Method::Resolved), false);
    }
    host.signal.notify_one();
    after(1).await;
    assert_eq!(host.state().set, Some(Method::Resolved));
    // Away for good, as where somebody switched it off.
    {
        let mut state = host.state();
        (state.set, state.method) = (None, Some(Method::ResolvConf));
    }
    after(40).await;
    assert_eq!(host.state().set, None);
    after(60).await;
    assert_eq!(host.state().set, Some(Method::ResolvConf));
}

#[tokio::test(start_paused = true)]
async fn what_a_person_has_to_change_is_a_warning_until_it_is_changed() {
    let host = Resolver::new();
    host.state().refuses = Some("WSL writes /etc/resolv.conf".into());
    let running = keeper(host.clone(), true).start();
    after(35).await;
    let finding = running.keeper.finding().unwrap();
    assert_eq!(finding.code, "host-resolver");
    assert!(
        finding.text.ends_with(": WSL writes /etc/resolv.conf"),
        "{finding:?}"
    );
    host.state().refuses = None;
    after(31).await;
    assert_eq!(running.keeper.finding(), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_set_and_does_not_work_is_a_warning_that_says_what_is_found() {
    let host = Resolver::new();
    for (libc, said) in [
        (LookUp::Nothing, "libc finds nothing for a.in.example.org"),
        (LookUp::TookTooLong, "libc gets no answer in time for"),
    ] {
        host.state().libc = Some(libc);
        let running = keeper(host.clone(), true).start();
        after(5).await;
        assert_eq!(running.works(), Some(false));
        let text = running.keeper.finding().unwrap().text;
        assert!(text.contains(said), "{text}");
        assert!(
            text.ends_with("although systemd-resolved asks the agent"),
            "{text}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_finds_itself_in_its_hosts_file_is_asked_for_another_name() {
    let host = Resolver::new();
    let own = LookUp::Found(vec!["127.0.1.1".parse().unwrap()]);
    host.state().libc = Some(own);
    let running = keeper(host.clone(), true).start();
    after(1).await;
    assert_eq!(running.works(), Some(true));
    assert_eq!(
        host.state().looked_up,
        ["a.in.example.org", "acme.in.example.org"]
    );
}

#[tokio::test(start_paused = true)]
async fn libc_is_not_asked_more_often_than_each_half_minute() {
    let host = Resolver::new();
    let running = keeper(host.clone(), true).start();
    for _ in 0..100 {
        after(1).await;
        running.news.notify_one();
    }
    let asked = host.state().looked_up.len();
    assert!((3..=4).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn switched_off_it_is_left_alone_and_only_a_look_up_that_fails_is_a_warning() {
    let host = Resolver::new();
    let running = keeper(host.clone(), false).start();
    after(65).await;
    let status = running.keeper.status();
    assert_eq!((status.managed, status.works), (false, Some(false)));
    assert!(status.why.contains("\"off\""), "{status:?}");
    let finding = running.keeper.finding().unwrap();
    assert_eq!(finding.remedy, "`agent dns setup` sets it");
    // Somebody has set it by hand.
    host.state().set = Some(Method::Resolved);
    after(31).await;
    assert_eq!(running.keeper.finding(), None);
    running.keeper.setup().await.unwrap();
    running.keeper.release().await.unwrap();
    running.keeper.end().await;
    assert_eq!(host.state().applied, 0);
    assert_eq!(host.state().restored, 0);
}

#[tokio::test(start_paused = true)]
async fn who_takes_it_back_has_it_left_alone_until_they_ask_again() {
    let host = Resolver::new();
    let running = keeper(host.clone(), true).start();
    after(5).await;
    running.keeper.release().await.unwrap();
    after(65).await;
    assert_eq!(host.outcome(), (None, 1));
    assert!(running.keeper.status().why.contains("`agent dns restore`"));
    let status = running.keeper.setup().await.unwrap();
    assert_eq!((status.managed, status.works), (true, Some(true)));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_ends_takes_it_back_and_sets_nothing_after_that() {
    let host = Resolver::new();
    let running = keeper(host.clone(), true).start();
    after(5).await;
    running.keeper.end().await;
    after(65).await;
    assert_eq!(host.outcome(), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_not_the_agent_s_is_never_looked_at() {
    let running = keeper(Arc::new(Unmanaged::because("it is a test")), true).start();
    after(65).await;
    let status = running.keeper.status();
    assert_eq!(
        (status.managed, status.why.as_str(), status.works),
        (false, "it is a test", None)
    );
    assert_eq!(running.keeper.finding(), None);
}
