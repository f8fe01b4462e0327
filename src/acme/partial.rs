//! Names that are refused while others of the same certificate are not: which are ordered, and when the refused ones are tried
//! again. Pure.

use time::OffsetDateTime;

use super::renewal::{self, Why};
use super::store::{Bundle, Record, Refused};
use crate::name::HostPattern;

/// The names that an order is for: all, where the refused ones are to be tried again, or are served still; else the others.
pub(super) fn to_order(record: &Record, why: Why, now: OffsetDateTime) -> Vec<HostPattern> {
    let refused = match &record.refused {
        Some(refused)
            if !matches!(why, Why::Lacking | Why::Asked) && !are_served(record, refused, why, now) =>
        {
            refused
        }
        _ => return record.names.clone(),
    };
    record.names.iter().filter(|name| !has(refused, name)).cloned().collect()
}

/// Notes which of the ordered names failed. None are refused where all of them would be: then it is the ladder of the whole
/// certificate that counts.
pub(super) fn refuse(
    record: &mut Record,
    ordered: &[HostPattern],
    failed: &[(String, String)],
    seed: &[u8],
    now: OffsetDateTime,
) {
    let reason = |name: &HostPattern| {
        let own = failed.iter().find(|(failed, _)| *failed == name.to_string()).map(|(_, why)| why.clone());
        let kept = || {
            record.refused.as_ref()?.names.iter().find(|(kept, _)| kept == name).map(|(_, why)| why.clone())
        };
        if ordered.contains(name) { own } else { kept() }
    };
    let names: Vec<_> = record.names.iter().filter_map(|name| Some((name.clone(), reason(name)?))).collect();
    if (1..record.names.len()).contains(&names.len()) {
        let tries = record.refused.as_ref().map_or(0, |refused| refused.tries);
        record.refused = Some(Refused { names, tries, not_before: now });
    } else {
        let lacks = record.bundle.as_ref().is_some_and(|bundle| !bundle.lacks.is_empty());
        record.refused = record.refused.take().filter(|_| lacks);
    }
    put_off(record, None, seed, now);
}

/// One try more has failed: the ladder's next step, and its first is the whole certificate's.
pub(super) fn put_off(
    record: &mut Record,
    retry_after: Option<std::time::Duration>,
    seed: &[u8],
    now: OffsetDateTime,
) {
    if let Some(refused) = &mut record.refused {
        refused.tries = refused.tries.saturating_add(1);
        refused.not_before = renewal::retry_at(refused.tries.saturating_add(1), retry_after, seed, now);
    }
}

/// When names that the certificate lacks are tried again; None where it lacks none. A clock that was wrong puts nothing off.
pub(super) fn joins_at(record: &Record, bundle: &Bundle, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let until = record.refused.as_ref().map(|refused| refused.not_before);
    (!bundle.lacks.is_empty()).then(|| renewal::waits(until, now).unwrap_or(now))
}

/// Whether a refused name has a certificate with much of its life left: no other takes its place, while that lasts.
fn are_served(record: &Record, refused: &Refused, why: Why, now: OffsetDateTime) -> bool {
    record.bundle.as_ref().filter(|_| why != Why::Revoked).is_some_and(|bundle| {
        let has_some = refused.names.iter().any(|(name, _)| !bundle.lacks.contains(name));
        has_some && !renewal::is_pressing(bundle.not_before, bundle.not_after, now)
    })
}

fn has(refused: &Refused, name: &HostPattern) -> bool {
    refused.names.iter().any(|(refused, _)| refused == name)
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;
    use crate::acme::store::Secret;

    const T0: OffsetDateTime = time::macros::datetime!(2026-11-24 00:00 UTC);

    fn name(text: &str) -> HostPattern {
        HostPattern::parse(text).unwrap()
    }

    fn record() -> Record {
        Record::new(["a.test", "b.test", "c.test"].map(name).to_vec())
    }

    fn bundle(lacks: &[&str]) -> Bundle {
        Bundle {
            key_pem: Secret::new(""),
            chain_pem: lacks.concat(),
            directory: String::new(),
            profile: None,
            issued: T0,
            not_before: T0,
            not_after: T0 + Duration::days(90),
            ari_id: None,
            imported: false,
            lacks: lacks.iter().map(|text| name(text)).collect(),
        }
    }

    /// As an order for all of its names that fails for these.
    fn fail(record: &mut Record, failed: &[&str], why: Why, now: OffsetDateTime) {
        let ordered = to_order(record, why, now);
        let failed: Vec<_> = failed.iter().map(|name| ((*name).to_owned(), format!("no {name}"))).collect();
        refuse(record, &ordered, &failed, b"seed", now);
    }

    fn ordered(record: &Record, why: Why, now: OffsetDateTime) -> String {
        to_order(record, why, now).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_refused_is_left_out_and_tried_again() {
        let mut record = record();
        assert_eq!(ordered(&record, Why::Missing, T0), "a.test b.test c.test");
        fail(&mut record, &["b.test", "elsewhere.test"], Why::Missing, T0);
        assert_eq!(ordered(&record, Why::Missing, T0), "a.test c.test");
        let refused = record.refused.clone().unwrap();
        assert_eq!((refused.tries, &*refused.names), (1, &[(name("b.test"), "no b.test".to_owned())][..]));
        assert!(refused.not_before >= T0 + Duration::minutes(10));
        // Another fails of those that are left.
        fail(&mut record, &["c.test"], Why::Missing, T0);
        assert_eq!(ordered(&record, Why::Missing, T0), "a.test");
        record.take_up(bundle(&["b.test", "c.test"]));
        assert_eq!(ordered(&record, Why::Age, T0), "a.test");
        for why in [Why::Lacking, Why::Asked] {
            assert_eq!(ordered(&record, why, T0), "a.test b.test c.test");
        }
        let until = record.refused.as_ref().unwrap().not_before;
        let own = record.bundle.clone().unwrap();
        assert_eq!(joins_at(&record, &own, T0), Some(until));
        assert_eq!(joins_at(&record, &own, T0 - Duration::days(400)), Some(T0 - Duration::days(400)));
        fail(&mut record, &["c.test"], Why::Lacking, until);
        let refused = record.refused.clone().unwrap();
        assert_eq!((refused.tries, refused.names.len()), (3, 1), "b.test is well again");
        record.take_up(bundle(&[]));
        assert_eq!((&record.refused, &record.spare), (&None, &None));
        assert_eq!(joins_at(&record, record.bundle.as_ref().unwrap(), T0), None);
    }

    #[test]
    fn where_all_fail_none_is_refused() {
        let mut record = record();
        fail(&mut record, &["a.test", "b.test", "c.test"], Why::Missing, T0);
        assert_eq!(record.refused, None);
        fail(&mut record, &["b.test"], Why::Missing, T0);
        fail(&mut record, &["a.test", "c.test"], Why::Missing, T0);
        assert_eq!(record.refused, None);
        // What is lacking stays known, whatever else fails.
        fail(&mut record, &["b.test"], Why::Missing, T0);
        record.take_up(bundle(&["b.test"]));
        fail(&mut record, &["a.test", "b.test", "c.test"], Why::Lacking, T0);
        assert_eq!(record.refused.as_ref().unwrap().names[0].0, name("b.test"));
        put_off(&mut record, Some(std::time::Duration::from_hours(20)), b"seed", T0);
        assert!(record.refused.unwrap().not_before > T0 + Duration::hours(20));
    }

    #[test]
    fn a_certificate_for_more_names_stays_while_it_lives() {
        let mut record = record();
        record.take_up(bundle(&[]));
        let day = |n| T0 + Duration::days(n);
        fail(&mut record, &["b.test"], Why::Age, day(60));
        assert_eq!(ordered(&record, Why::Age, day(74)), "a.test b.test c.test");
        assert_eq!(ordered(&record, Why::Age, day(75)), "a.test c.test");
        assert_eq!(ordered(&record, Why::Revoked, day(60)), "a.test c.test");
        record.take_up(bundle(&["b.test"]));
        let spare = record.spare.clone().unwrap();
        assert!(spare.lacks.is_empty());
        record.take_up(bundle(&["b.test"]));
        record.take_up(bundle(&["b.test", "c.test"]));
        assert_eq!(record.spare, Some(spare), "the one that has most");
        record.take_up(bundle(&[]));
        assert_eq!(record.spare, None);
    }
}
