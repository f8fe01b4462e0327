//! Which member is next.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::member::{FULL, Member};
use super::sticky::Token;
use crate::config::model::Balance;

/// How an upstream chooses.
#[derive(Debug)]
pub(super) struct Chooser {
    balance: Balance,
    turn: AtomicUsize,
}

impl Chooser {
    pub(super) fn new(balance: Balance) -> Self {
        Self { balance, turn: AtomicUsize::new(0) }
    }

    /// The member for a request, of those that `may` have it. `wants` is what the client's cookie names.
    pub(super) fn choose<'m>(
        &self,
        members: &'m [Arc<Member>],
        dice: &Dice,
        wants: Option<&Token>,
        may: impl Fn(&Member) -> bool,
    ) -> Option<&'m Arc<Member>> {
        if let [only] = members {
            return may(only).then_some(only);
        }
        let wanted = |member: &&Arc<Member>| wants.is_some() && member.token.as_ref() == wants;
        if let Some(member) = members.iter().find(wanted).filter(|member| may(member)) {
            return Some(member);
        }
        match self.balance {
            Balance::RoundRobin => self.in_turn(members, dice, may),
            Balance::LeastBusy | Balance::Sticky => less_busy_of_two(members, dice, may),
        }
    }

    /// The next one, where those that have just joined are passed over now and then.
    fn in_turn<'m>(
        &self,
        members: &'m [Arc<Member>],
        dice: &Dice,
        may: impl Fn(&Member) -> bool,
    ) -> Option<&'m Arc<Member>> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % members.len().max(1);
        let (before, from) = members.split_at_checked(first)?;
        let turns = || from.iter().chain(before).filter(|member| may(member));
        let takes = |member: &&Arc<Member>| {
            member.weight() == FULL || dice.below(FULL.into()) < usize::from(member.weight())
        };
        turns().find(takes).or_else(|| turns().next())
    }
}

/// Two are drawn, and the one with less to do for its weight is taken: nearly as even as the least busy of all, and many
/// that choose at once do not all run to the same one.
fn less_busy_of_two<'m>(
    members: &'m [Arc<Member>],
    dice: &Dice,
    may: impl Fn(&Member) -> bool,
) -> Option<&'m Arc<Member>> {
    let able = || members.iter().filter(|member| may(member));
    let count = able().count();
    if count < 2 {
        return able().next();
    }
    let first = dice.below(count);
    let second = dice.below(count - 1);
    let second = if second < first { second } else { second + 1 };
    // What may have one can change between two looks.
    let (Some(a), Some(b)) = (able().nth(first), able().nth(second)) else { return able().next() };
    let load = |member: &Member, other: &Member| (member.busy() + 1) * usize::from(other.weight());
    Some(if load(a, b) <= load(b, a) { a } else { b })
}

/// A source of numbers that need not be secret (xorshift64*).
#[derive(Debug)]
pub(super) struct Dice(Cell<u64>);

impl Dice {
    pub(super) fn new() -> Self {
        Self(Cell::new(getrandom::u64().unwrap_or(1) | 1))
    }

    /// From 0 to one less than `end`, which is no more than 2^32.
    pub(super) fn below(&self, end: usize) -> usize {
        let mut state = self.0.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.0.set(state);
        let high = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        usize::try_from((high * end as u64) >> 32).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::member::{Address, Flag};
    use super::*;

    fn members(count: u16) -> Vec<Arc<Member>> {
        let address = |port| Address::Tcp(([127, 0, 0, 1], port).into(), None);
        (0..count)
            .map(|port| Member::new(0, address(port), Some([u8::try_from(port).unwrap(); 22]), false))
            .collect()
    }

    fn chosen(
        chooser: &Chooser,
        members: &[Arc<Member>],
        wants: Option<&Token>,
        rounds: usize,
    ) -> Vec<usize> {
        let dice = Dice::new();
        let mut counts = vec![0; members.len()];
        for _ in 0..rounds {
            let member = chooser.choose(members, &dice, wants, Member::is_available).unwrap();
            let place = members.iter().position(|own| own.id == member.id).unwrap();
            counts[place] += 1;
        }
        counts
    }

    #[test]
    fn each_in_turn_and_those_that_are_away_not_at_all() {
        let (chooser, members) = (Chooser::new(Balance::RoundRobin), members(3));
        assert_eq!(chosen(&chooser, &members, None, 300), [100, 100, 100]);
        members[1].set(Flag::DOWN);
        let counts = chosen(&chooser, &members, None, 300);
        assert_eq!((counts[1], counts.iter().sum()), (0, 300));
    }

    #[test]
    fn the_less_busy_gets_more_and_the_busiest_nothing() {
        let (chooser, members) = (Chooser::new(Balance::LeastBusy), members(3));
        (0..5).for_each(|_| members[0].begin(0));
        let counts = chosen(&chooser, &members, None, 1000);
        assert!(counts[0] == 0 && counts[1] > 300 && counts[2] > 300, "{counts:?}");
        (0..9).for_each(|_| members[1].begin(0));
        let counts = chosen(&chooser, &members, None, 1000);
        assert!(counts[1] == 0 && counts[0] > 200 && counts[2] > 500, "{counts:?}");
        members[2].set(Flag::DRAINED);
        assert_eq!(chosen(&chooser, &members, None, 10), [10, 0, 0]);
    }

    #[test]
    fn one_that_has_just_joined_gets_less() {
        for balance in [Balance::LeastBusy, Balance::RoundRobin] {
            let (chooser, members) = (Chooser::new(balance), members(2));
            members[0].recovered(1);
            (0..4).for_each(|_| members[1].begin(0));
            let counts = chosen(&chooser, &members, None, 1000);
            assert!(counts[0] < 200, "{counts:?}");
        }
    }

    #[test]
    fn a_cookie_is_followed_while_its_member_is_there() {
        let (chooser, members) = (Chooser::new(Balance::Sticky), members(5));
        (0..9).for_each(|_| members[3].begin(0));
        assert_eq!(chosen(&chooser, &members, Some(&[3; 22]), 50), [0, 0, 0, 50, 0]);
        members[3].set(Flag::DOWN);
        assert_eq!(chosen(&chooser, &members, Some(&[3; 22]), 50)[3], 0);
        let forged = chosen(&chooser, &members, Some(&[77; 22]), 50);
        assert_eq!((forged[3], forged.iter().sum()), (0, 50));
    }
}
