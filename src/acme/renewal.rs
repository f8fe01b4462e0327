//! When a certificate is renewed, and when a failure is tried again: pure functions of what is known and of the clock.

use aws_lc_rs::digest;
use time::{Duration, OffsetDateTime};

/// A certificate with a life shorter than this is renewed when half of it is over, others with a third left.
const SHORT_LIFE: Duration = Duration::days(10);
/// How long to wait before a CA's renewal information is asked for again after an error.
pub const AFTER_ERROR: Duration = Duration::hours(6);
/// How often renewal information is asked for at most, and at least.
const POLL: (Duration, Duration) = (Duration::minutes(1), Duration::days(1));
/// The waits between failures; the last one repeats.
const LADDER: [Duration; 4] =
    [Duration::minutes(1), Duration::minutes(10), Duration::minutes(100), Duration::days(1)];
/// The longest wait that is ever noted: the ladder's last step with its jitter. One beyond it is left from a clock that was wrong.
const LONGEST: Duration = Duration::hours(30);
/// The shares of a life at whose end an alarm is due.
const ALARMS: [i32; 3] = [20, 6, 3];

/// What is known about a certificate that is in use.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The leaf, for a choice that differs by certificate and stays the same for one.
    pub leaf: &'a [u8],
    /// The beginning of its life.
    pub not_before: OffsetDateTime,
    /// The end of its life.
    pub not_after: OffsetDateTime,
    /// Whether it covers exactly the names that the configuration asks for.
    pub names_fit: bool,
    /// Whether it was revoked by command.
    pub revoked: bool,
    /// The window that the CA suggests (RFC 9773), as it came.
    pub window: Option<Window>,
    /// When the certificate was obtained.
    pub issued: OffsetDateTime,
    /// When names that it lacks, as they were refused, are tried again; None where it lacks none.
    pub lacking: Option<OffsetDateTime>,
    /// How many certificates were obtained for these names within the week before `issued`, this one included.
    pub lately: u32,
}

/// A suggested window (RFC 9773 section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its start.
    pub start: OffsetDateTime,
    /// Its end.
    pub end: OffsetDateTime,
}

/// What is to be done with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing before that moment.
    Keep {
        /// When it is to be renewed, as far as is known now.
        until: OffsetDateTime,
        /// What chose the moment.
        why: Why,
    },
    /// A new one is to be ordered.
    Renew(Why),
}

/// Why a certificate is renewed, or will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A person asked for it.
    Asked,
    /// There is none.
    Missing,
    /// The configuration asks for other names.
    Names,
    /// It lacks names that were refused.
    Lacking,
    /// It was revoked by command.
    Revoked,
    /// It has expired.
    Expired,
    /// The CA's window.
    Window,
    /// Its age alone: the CA suggests nothing that can be used, or waits too long.
    Age,
}

impl Why {
    /// A few words for the log and for `certs list`.
    pub fn text(self) -> &'static str {
        match self {
            Self::Asked => "a person asked for it",
            Self::Missing => "there is none",
            Self::Names => "the names have changed",
            Self::Lacking => "names that were refused",
            Self::Revoked => "it was revoked",
            Self::Expired => "it has expired",
            Self::Window => "the CA's window",
            Self::Age => "its age",
        }
    }
}

/// Decides about one certificate; None is a name without one.
pub fn decide(subject: Option<&Subject<'_>>, now: OffsetDateTime) -> Decision {
    let Some(subject) = subject else { return Decision::Renew(Why::Missing) };
    let urgent = [
        (!subject.names_fit, Why::Names),
        (subject.revoked, Why::Revoked),
        (now >= subject.not_after && !was_old(subject, subject.not_after, now), Why::Expired),
    ];
    if let Some((_, why)) = urgent.into_iter().find(|(is_so, _)| *is_so) {
        return Decision::Renew(why);
    }
    let joins = subject.lacking.map(|at| (at, Why::Lacking));
    let (until, why) =
        joins.into_iter().fold(due(subject, now), |due, joins| if joins.0 < due.0 { joins } else { due });
    if now >= until { Decision::Renew(why) } else { Decision::Keep { until, why } }
}

/// Whether a window says anything: its end is behind its start (RFC 9773 section 4.2), and it is narrower than the
/// certificate's whole life.
pub fn is_usable(window: Window, not_before: OffsetDateTime, not_after: OffsetDateTime) -> bool {
    window.start < window.end && (window.start > not_before || window.end < not_after)
}

/// The moment inside a window at which the certificate is renewed: drawn by the leaf, so that it differs from certificate to
/// certificate, and stays while the window does.
pub fn moment(leaf: &[u8], window: Window) -> OffsetDateTime {
    window.start + (window.end - window.start) * share(&[leaf, &stamp(window)])
}

/// When renewal information is to be asked for again: what the CA said, within a minute and a day.
pub fn next_poll(now: OffsetDateTime, said: std::time::Duration) -> OffsetDateTime {
    let said = Duration::try_from(said).unwrap_or(POLL.1);
    now + said.clamp(POLL.0, POLL.1)
}

/// When to try again after so many failures in a row (at least 1): the ladder's step, up to a fifth later so that those
/// who failed together do not come back together, and never before what the CA asked for.
pub fn retry_at(
    failures: u32,
    retry_after: Option<std::time::Duration>,
    seed: &[u8],
    now: OffsetDateTime,
) -> OffsetDateTime {
    let step = step(failures.max(1));
    let asked = retry_after.and_then(|wait| Duration::try_from(wait).ok()).unwrap_or_default();
    let wait = step.max(asked);
    now + wait + wait * (share(&[seed, &failures.to_le_bytes()]) / 5.0)
}

/// The end of a wait that is not over. A clock that jumped back makes no wait longer than any that is noted.
pub fn waits(until: Option<OffsetDateTime>, now: OffsetDateTime) -> Option<OffsetDateTime> {
    until.filter(|until| now < *until && *until - now <= LONGEST)
}

/// Whether so little of a life is left that a certificate for some of its names is better than none for all: later than any
/// usual renewal, and early enough for a step of the ladder.
pub fn is_pressing(not_before: OffsetDateTime, not_after: OffsetDateTime, now: OffsetDateTime) -> bool {
    now >= latest(not_before, not_after)
}

/// The alarm that is due for a certificate with that little life left: 3, 6 or 20 for a third, a sixth, a twentieth, and 0 at
/// its end.
pub fn alarm(not_before: OffsetDateTime, not_after: OffsetDateTime, now: OffsetDateTime) -> Option<i32> {
    let life = not_after - not_before;
    let left = not_after - now;
    if left <= Duration::ZERO {
        return Some(0);
    }
    ALARMS.into_iter().find(|part| left < life / *part)
}

fn due(subject: &Subject<'_>, now: OffsetDateTime) -> (OffsetDateTime, Why) {
    let again = subject.issued.saturating_add(step(subject.lately.saturating_sub(1)));
    let life = subject.not_after - subject.not_before;
    let aged = subject.not_after - life / part(life);
    let aged = if was_old(subject, aged, now) { again } else { aged };
    let usable = subject.window.filter(|window| is_usable(*window, subject.not_before, subject.not_after));
    let Some(window) = usable else { return (aged, Why::Age) };
    // A CA that wants every new certificate renewed at once is obeyed once, and then at the ladder's pace.
    let moment = moment(subject.leaf, window).max(again);
    // Only a renewal inside its window is free of the CA's limits, so that a window may lie behind the usual age; but not
    // by more than half of what is left then.
    let last = latest(subject.not_before, subject.not_after);
    if moment <= last { (moment, Why::Window) } else { (last, Why::Age) }
}

/// Whether that moment had passed when the certificate came: by a clock that is wrong, another will be no younger, and is asked
/// for at the ladder's pace.
fn was_old(subject: &Subject<'_>, moment: OffsetDateTime, now: OffsetDateTime) -> bool {
    moment <= subject.issued && subject.issued <= now
}

/// The share of a life that is left when the certificate's age alone decides.
fn part(life: Duration) -> i32 {
    if life < SHORT_LIFE { 2 } else { 3 }
}

/// When half of that share is left.
fn latest(not_before: OffsetDateTime, not_after: OffsetDateTime) -> OffsetDateTime {
    let life = not_after - not_before;
    not_after - life / (2 * part(life))
}

/// The ladder's step after so many of them; none before the first.
fn step(count: u32) -> Duration {
    let Some(at) = count.checked_sub(1) else { return Duration::ZERO };
    let at = usize::try_from(at).unwrap_or(usize::MAX).min(LADDER.len() - 1);
    LADDER.get(at).copied().unwrap_or(POLL.1)
}

fn stamp(window: Window) -> [u8; 16] {
    let mut stamp = [0; 16];
    let (start, end) = stamp.split_at_mut(8);
    start.copy_from_slice(&window.start.unix_timestamp().to_le_bytes());
    end.copy_from_slice(&window.end.unix_timestamp().to_le_bytes());
    stamp
}

/// A number from 0 up to 1 that the parts decide.
fn share(parts: &[&[u8]]) -> f64 {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let hash = context.finish();
    let first = hash.as_ref().first_chunk::<4>().map_or(0, |first| u32::from_le_bytes(*first));
    f64::from(first) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T0: OffsetDateTime = time::macros::datetime!(2026-11-24 00:00 UTC);

    fn days(n: i64) -> OffsetDateTime {
        T0 + Duration::days(n)
    }

    fn subject(life: Duration) -> Subject<'static> {
        Subject {
            leaf: b"leaf",
            not_before: T0,
            not_after: T0 + life,
            names_fit: true,
            revoked: false,
            window: None,
            issued: T0,
            lacking: None,
            lately: 1,
        }
    }

    fn window(start: i64, end: i64) -> Window {
        Window { start: days(start), end: days(end) }
    }

    #[test]
    fn a_record_from_the_end_of_time_is_read_all_the_same() {
        let end = time::macros::datetime!(9999-12-31 23:59:59 UTC);
        let subject = Subject { issued: end, not_after: end, lately: 9, ..subject(Duration::days(90)) };
        assert!(matches!(decide(Some(&subject), T0), Decision::Keep { .. }));
    }

    #[test]
    fn decisions() {
        let long = subject(Duration::days(90));
        let with = |window| Subject { window: Some(window), ..long };
        let renew = Decision::Renew;
        let keep = |until, why| Decision::Keep { until, why };
        let week = subject(Duration::hours(160));
        let (half, minute) = (T0 + Duration::hours(80), Duration::minutes(1));
        let late = |lately, day| Subject { lately, issued: days(day), ..long };
        for (name, subject, now, expected) in [
            ("none", None, T0, renew(Why::Missing)),
            ("fresh", Some(long), T0, keep(days(60), Why::Age)),
            ("a third left", Some(long), days(60), renew(Why::Age)),
            ("short: half", Some(week), T0, keep(half, Why::Age)),
            ("short: due", Some(week), half, renew(Why::Age)),
            ("expired", Some(long), days(90), renew(Why::Expired)),
            ("names", Some(Subject { names_fit: false, ..long }), T0, renew(Why::Names)),
            ("revoked", Some(Subject { revoked: true, ..long }), T0, renew(Why::Revoked)),
            ("window in the past", Some(with(window(-3, -1))), T0, renew(Why::Window)),
            (
                "a window in the past again",
                Some(Subject { lately: 2, ..with(window(-3, -1)) }),
                T0,
                keep(T0 + Duration::minutes(1), Why::Window),
            ),
            (
                "and again",
                Some(Subject { lately: 99, ..with(window(-3, -1)) }),
                T0,
                keep(days(1), Why::Window),
            ),
            (
                "often, and in its time",
                Some(Subject { lately: 99, ..with(window(2, 3)) }),
                days(3),
                renew(Why::Window),
            ),
            ("end before start", Some(with(window(61, 59))), T0, keep(days(60), Why::Age)),
            ("an empty window", Some(with(window(59, 59))), T0, keep(days(60), Why::Age)),
            ("wider than life", Some(with(window(-10, 100))), T0, keep(days(60), Why::Age)),
            ("far too late", Some(with(window(88, 89))), T0, keep(days(75), Why::Age)),
            ("behind the end", Some(with(window(200, 300))), T0, keep(days(75), Why::Age)),
            ("the clock jumped back", Some(long), days(-400), keep(days(60), Why::Age)),
            ("the clock jumped on", Some(long), days(4000), renew(Why::Expired)),
            ("old when it came", Some(late(1, 70)), days(70), renew(Why::Age)),
            ("and again", Some(late(2, 70)), days(70), keep(days(70) + minute, Why::Age)),
            ("over when it came", Some(late(2, 400)), days(400), keep(days(400) + minute, Why::Age)),
            ("the clock is right again", Some(late(2, 70)), days(60), renew(Why::Age)),
            ("and had been beyond the end", Some(late(9, 400)), days(90), renew(Why::Expired)),
            (
                "lacks names",
                Some(Subject { lacking: Some(days(1)), ..long }),
                T0,
                keep(days(1), Why::Lacking),
            ),
            ("their time", Some(Subject { lacking: Some(T0), ..long }), T0, renew(Why::Lacking)),
            ("its own first", Some(Subject { lacking: Some(days(61)), ..long }), days(60), renew(Why::Age)),
        ] {
            assert_eq!(decide(subject.as_ref(), now), expected, "{name}");
        }
    }

    #[test]
    fn the_moment_inside_a_window_is_stable_and_differs_by_certificate() {
        let within = |leaf: &'static [u8]| {
            let subject = Subject { leaf, window: Some(window(59, 61)), ..subject(Duration::days(90)) };
            match decide(Some(&subject), T0) {
                Decision::Keep { until, why: Why::Window } => until,
                other => panic!("{other:?}"),
            }
        };
        let (a, b) = (within(b"a"), within(b"b"));
        assert_eq!(a, within(b"a"));
        assert_ne!(a, b);
        for moment in [a, b] {
            assert!(days(59) <= moment && moment < days(61), "{moment}");
        }
    }

    #[test]
    fn polls_and_retries() {
        let seconds = std::time::Duration::from_secs;
        assert_eq!(next_poll(T0, seconds(0)), T0 + Duration::minutes(1));
        assert_eq!(next_poll(T0, seconds(21_600)), T0 + Duration::hours(6));
        assert_eq!(next_poll(T0, seconds(u64::MAX)), T0 + Duration::days(1));
        for (failures, retry_after, least) in [
            (0, None, Duration::minutes(1)),
            (1, None, Duration::minutes(1)),
            (2, None, Duration::minutes(10)),
            (3, None, Duration::minutes(100)),
            (4, None, Duration::days(1)),
            (u32::MAX, None, Duration::days(1)),
            (1, Some(seconds(3600)), Duration::hours(1)),
            (4, Some(seconds(5)), Duration::days(1)),
        ] {
            let at = retry_at(failures, retry_after, b"a.example.com", T0);
            assert!(T0 + least <= at && at <= T0 + least * 1.2, "{failures}: {at}");
        }
        assert_ne!(retry_at(1, None, b"a", T0), retry_at(1, None, b"b", T0));
    }

    #[test]
    fn a_wait_from_a_clock_that_was_wrong_is_none() {
        assert_eq!(waits(None, T0), None);
        assert_eq!(waits(Some(T0), T0), None);
        assert_eq!(waits(Some(days(1)), T0), Some(days(1)));
        assert_eq!(waits(Some(days(400)), T0), None);
        let longest = retry_at(u32::MAX, Some(std::time::Duration::from_hours(24)), b"a", T0);
        assert_eq!(waits(Some(longest), T0), Some(longest));
    }

    #[test]
    fn little_life_is_left_once_half_of_the_usual_rest_is_over() {
        for (life, hours) in [(Duration::days(90), 75 * 24), (Duration::hours(160), 120)] {
            let at = T0 + Duration::hours(hours);
            assert!(is_pressing(T0, T0 + life, at) && !is_pressing(T0, T0 + life, at - Duration::SECOND));
        }
    }

    #[test]
    fn alarms_at_a_third_a_sixth_and_a_twentieth() {
        for (day, expected) in [
            (0, None),
            (60, None),
            (61, Some(3)),
            (76, Some(6)),
            (86, Some(20)),
            (89, Some(20)),
            (90, Some(0)),
            (91, Some(0)),
        ] {
            assert_eq!(alarm(T0, days(90), days(day)), expected, "day {day}");
        }
    }

    proptest! {
        #[test]
        fn a_certificate_is_always_renewed_while_it_lives(
            life in 60_i64..10_000_000, start in -20_000_000_i64..20_000_000, length in -10_i64..20_000_000,
        ) {
            let (life, start) = (Duration::seconds(life), T0 + Duration::seconds(start));
            let window = Some(Window { start, end: start + Duration::seconds(length) });
            let subject = Subject { window, ..subject(life) };
            let last = subject.not_after - life / 8;
            prop_assert!(matches!(decide(Some(&subject), last), Decision::Renew(_)));
        }
    }
}
