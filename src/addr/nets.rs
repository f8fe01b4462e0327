//! Networks of one width, laid out so that a look-up waits for one place in memory, whatever there is.

/// Networks of addresses that are a `T`. What lies between the first and the last is cut into equal buckets, a power of two
/// addresses each, one [`Line`] to a bucket; a network that reaches over several stands in each. What crowds in one bucket
/// stands elsewhere.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Nets<T, const WORDS: usize, const PLACES: usize> {
    lines: Box<[Line<WORDS, PLACES>]>,
    /// First and last address of the networks of crowded buckets, bucket after bucket.
    crowds: Box<[(T, T)]>,
    /// How many bits tell the addresses of a bucket apart.
    low: u32,
    /// The other bits of those in the first bucket.
    first: T,
}

/// The networks of one bucket as keys, in a cache line: the first words of all, then the second ones, so that the processor
/// compares four at once. Places that are left over hold [`NONE`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
struct Line<const WORDS: usize, const PLACES: usize>([[u32; PLACES]; WORDS]);

/// How many bits of an address one word of a key holds, the first word one less. Below those that are the network's is a one,
/// and zeros for those that are the host's: a word says by itself which bits of an address it is about.
const BITS: u32 = 31;
/// Set in the first word of a key that does not hold its addresses, but tells to ask elsewhere. It is set in no address's.
const ASK: u32 = 1 << BITS;
/// The words of no key.
const NONE: u32 = ASK | 1;
/// The first word of a line whose networks stand elsewhere: the key tells all addresses to ask, with [`ANY`] as its other
/// words. Behind it stand from where on, and how many.
const CROWDED: u32 = ASK | ANY >> 1;
/// A word that is about no bit of an address.
const ANY: u32 = 1 << BITS;

/// First and last address of a network, and what is set in the first word of its key: [`ASK`] or nothing.
type Net<T> = (T, T, u32);

impl<T: Address, const WORDS: usize, const PLACES: usize> Nets<T, WORDS, PLACES> {
    /// From ranges, first and last address of each, in any order and with overlaps; and addresses of which these do not tell
    /// all, if they do not hold them.
    pub(super) fn new(ranges: Vec<(T, T)>, parts: Vec<T>) -> Self {
        let ranges = merged(ranges);
        let whole = ranges.iter().flat_map(|(first, last)| cover(*first, *last));
        let parts = parts.into_iter().filter(|part| !holds(&ranges, *part));
        let mut nets: Vec<Net<T>> = whole.map(|(first, last)| (first, last, 0)).collect();
        nets.extend(parts.map(|part| (part, part, ASK)));
        nets.sort_unstable();
        nets.dedup();
        let (Some((first, ..)), Some((_, last, _))) = (nets.first(), nets.last()) else {
            return Self::default();
        };
        // Half full at most: of networks that are strewn at random, one bucket in fifty is crowded with 8 places, one in 270 with 16.
        let wanted = T::of(nets.len() * 2 / PLACES);
        let enough = |low: &u32| last.shifted(*low).distance(first.shifted(*low)) >= wanted;
        // As many as a key holds: a network may be as large as a bucket.
        let most = (1..WORDS).fold(BITS - 1, |most, _| most + BITS).min(T::WIDTH - 1);
        let low = (0..=most).rev().find(enough).unwrap_or(0);
        Self { low, first: first.shifted(low), ..Self::default() }.filled(&nets)
    }

    fn filled(mut self, mut rest: &[Net<T>]) -> Self {
        let (mut lines, mut crowds, mut bucket) = (Vec::new(), Vec::new(), self.first);
        while !rest.is_empty() {
            let (from, to) = (bucket.raised(self.low), bucket.raised(self.low).filled(self.low));
            let here = rest.iter().take_while(|(first, ..)| *first <= to);
            let here: Vec<Net<T>> =
                here.map(|(first, last, ask)| ((*first).max(from), (*last).min(to), *ask)).collect();
            if here.len() <= PLACES {
                lines.push(Line::of(&here));
            } else {
                let begin = crowds.len();
                crowds.extend(
                    here.iter().filter(|(.., ask)| *ask == 0).map(|(first, last, _)| (*first, *last)),
                );
                lines.push(Line::crowded(begin, crowds.len() - begin));
            }
            let gone = rest.iter().take_while(|(_, last, _)| *last <= to).count();
            rest = rest.get(gone..).unwrap_or_default();
            bucket = bucket.next().unwrap_or(bucket);
        }
        (self.lines, self.crowds) = (lines.into(), crowds.into());
        self
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether one of them holds an address; where they do not tell, what `ask` says. Nothing is jumped over here but that: a
    /// jump that was guessed wrong costs more than the rest.
    #[inline]
    pub(super) fn holds(&self, address: T, ask: impl FnOnce() -> bool) -> bool {
        let bucket = address.shifted(self.low).distance(self.first).count();
        let Some(line) = self.lines.get(bucket) else { return false };
        let (held, asked) = line.holds(address);
        if !held & asked { holds(self.crowd(line), address) || ask() } else { held }
    }

    /// The networks of a crowded bucket; of another one none.
    fn crowd(&self, line: &Line<WORDS, PLACES>) -> &[(T, T)] {
        let Some((from, count)) = line.crowd() else { return &[] };
        self.crowds.get(from..).and_then(|rest| rest.get(..count)).unwrap_or_default()
    }

    /// The addresses as ranges, first and last address of each, in order; none of them touch.
    pub(super) fn ranges(&self) -> Vec<(T, T)> {
        let (mut ranges, mut bucket) = (Vec::new(), self.first);
        for line in &self.lines {
            ranges.extend_from_slice(self.crowd(line));
            ranges.extend(line.ranges(bucket.raised(self.low)));
            bucket = bucket.next().unwrap_or(bucket);
        }
        merged(ranges)
    }
}

impl<const WORDS: usize, const PLACES: usize> Line<WORDS, PLACES> {
    /// Of networks of one bucket, no more than there are places.
    fn of<T: Address>(nets: &[Net<T>]) -> Self {
        let key = |at: usize, place: usize| {
            let Some((first, last, ask)) = nets.get(place) else { return NONE };
            let host = first.host(*last).word::<WORDS>(at);
            let key = first.word::<WORDS>(at) << 1 & !host | (host + 1);
            if at == 0 { key | ask } else { key }
        };
        Self(std::array::from_fn(|at| std::array::from_fn(|place| key(at, place))))
    }

    fn crowded(from: usize, count: usize) -> Self {
        // Like no key, whatever the number; 30 bits, or 8 GiB of them.
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX) << 1 | NONE;
        Self(std::array::from_fn(|at| {
            std::array::from_fn(|place| match (at, place) {
                (0, 0) => CROWDED,
                (_, 0) => ANY,
                (0, 1) => number(from),
                (0, 2) => number(count),
                _ => NONE,
            })
        }))
    }

    /// From where on the networks of a crowded bucket stand, and how many.
    fn crowd(&self) -> Option<(usize, usize)> {
        let number = |place| Some(((self.word(0, place)? ^ ASK) >> 1) as usize);
        self.word(0, 0).filter(|word| *word == CROWDED)?;
        Some((number(1)?, number(2)?))
    }

    fn word(&self, at: usize, place: usize) -> Option<u32> {
        self.0.get(at)?.get(place).copied()
    }

    /// Whether a network holds an address, and whether a key tells to ask elsewhere.
    #[inline]
    fn holds<T: Address>(&self, address: T) -> (bool, bool) {
        let mut others = [0; PLACES];
        for (at, keys) in self.0.iter().enumerate() {
            let word = address.word::<WORDS>(at) << 1 | 1;
            for (key, other) in keys.iter().zip(&mut others) {
                *other |= (key ^ word) & !about(*key);
            }
        }
        // No jump: `contains` would stop at the first.
        let has = |sought: u32| others.iter().fold(0, |has, other| has | u32::from(*other == sought)) != 0;
        (has(0), has(ASK))
    }

    /// The networks as ranges; `bucket` is the first address of the bucket.
    fn ranges<T: Address>(&self, bucket: T) -> impl Iterator<Item = (T, T)> {
        let range = move |place: usize| {
            let (mut first, mut last) = (bucket, bucket);
            for at in 0..WORDS {
                let key = self.word(at, place).filter(|key| at > 0 || key & ASK == 0)?;
                first = first.with_word::<WORDS>(at, (key & !about(key)) >> 1);
                last = last.with_word::<WORDS>(at, (key | about(key)) >> 1);
            }
            Some((first, last))
        };
        (0..PLACES).filter_map(range)
    }
}

/// The bits of a key's word that are the host's, and the one above them.
#[inline]
fn about(key: u32) -> u32 {
    key ^ key.wrapping_sub(1)
}

/// The fewest networks that hold a range and nothing else, from its first to its last address.
fn cover<T: Address>(first: T, last: T) -> impl Iterator<Item = (T, T)> {
    let mut rest = Some(first);
    std::iter::from_fn(move || {
        let start = rest.filter(|start| *start <= last)?;
        let end = start.widest(last);
        rest = end.next();
        Some((start, end))
    })
}

/// Sorted, and what touches or overlaps made one.
pub(super) fn merged<T: Address>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    ranges.dedup_by(|(first, last), (_, end)| {
        let touches = end.next().is_none_or(|next| *first <= next);
        *end = if touches { (*end).max(*last) } else { *end };
        touches
    });
    ranges
}

/// Whether one of ranges that are [`merged`] holds an address.
fn holds<T: Address>(ranges: &[(T, T)], address: T) -> bool {
    let below = ranges.partition_point(|(first, _)| *first <= address);
    below.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, last)| address <= *last)
}

/// An unsigned integer that an address is.
pub(super) trait Address: Copy + Ord + Default {
    const WIDTH: u32;
    /// At most the type's largest.
    fn of(count: usize) -> Self;
    /// As a count; what is more than a count can be as the largest.
    fn count(self) -> usize;
    fn next(self) -> Option<Self>;
    /// From another to this one, modulo the width.
    fn distance(self, from: Self) -> Self;
    /// Without the lower bits.
    fn shifted(self, low: u32) -> Self;
    /// With so many lower bits, all zero.
    fn raised(self, low: u32) -> Self;
    /// With the lower bits set.
    fn filled(self, low: u32) -> Self;
    /// Those of the bits in which the first and the last address of a network differ.
    fn host(self, last: Self) -> Self;
    /// The last address of the largest network that begins here and does not reach beyond `last`.
    fn widest(self, last: Self) -> Self;
    /// The bits of a word, those of the last one the lowest.
    fn word<const WORDS: usize>(self, at: usize) -> u32;
    /// With bits set in a word.
    fn with_word<const WORDS: usize>(self, at: usize, word: u32) -> Self;
}

macro_rules! addresses {
    ($($int:ty),*) => {$(
        impl Address for $int {
            const WIDTH: u32 = Self::BITS;
            fn of(count: usize) -> Self {
                Self::try_from(count).unwrap_or(Self::MAX)
            }
            #[inline]
            fn count(self) -> usize {
                usize::try_from(self).unwrap_or(usize::MAX)
            }
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            #[inline]
            fn distance(self, from: Self) -> Self {
                self.wrapping_sub(from)
            }
            #[inline]
            fn shifted(self, low: u32) -> Self {
                self.wrapping_shr(low)
            }
            fn raised(self, low: u32) -> Self {
                self.wrapping_shl(low)
            }
            fn filled(self, low: u32) -> Self {
                self | !Self::MAX.wrapping_shl(low)
            }
            fn host(self, last: Self) -> Self {
                self ^ last
            }
            fn widest(self, last: Self) -> Self {
                let room = (last - self).checked_add(1).map_or(Self::BITS - 1, Self::ilog2);
                let host = self.trailing_zeros().min(room).min(Self::BITS - 1);
                self | ((1 << host) - 1)
            }
            #[inline]
            fn word<const WORDS: usize>(self, at: usize) -> u32 {
                let bits = self.wrapping_shr(place::<WORDS>(at)) & if at == 0 { 0x3fff_ffff } else { 0x7fff_ffff };
                u32::try_from(bits).unwrap_or(0)
            }
            fn with_word<const WORDS: usize>(self, at: usize, word: u32) -> Self {
                self | Self::from(word).wrapping_shl(place::<WORDS>(at))
            }
        }
    )*};
}
addresses!(u32, u64, u128);

#[inline]
fn place<const WORDS: usize>(at: usize) -> u32 {
    (at + 1..WORDS).fold(0, |place, _| place + BITS)
}

#[cfg(test)]
impl<T, const WORDS: usize, const PLACES: usize> Nets<T, WORDS, PLACES> {
    /// The memory that it takes.
    pub(super) fn octets(&self) -> usize {
        size_of_val(&*self.lines) + size_of_val(&*self.crowds)
    }
}
