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

/// How many bits of an address one word of a key holds. Below those that are the network's is a one, and zeros for those that
/// are the host's: a word says by itself which bits of an address it is about.
const BITS: u32 = 31;
/// The first word of no key: the topmost bit, which is set in no address's first word, is about.
const NONE: u32 = 1 << BITS | 1;
/// The first word of a line whose networks stand elsewhere; the next two say from where on, and how many.
const CROWDED: u32 = u32::MAX;

impl<T: Address, const WORDS: usize, const PLACES: usize> Nets<T, WORDS, PLACES> {
    /// From ranges, first and last address of each, in any order and with overlaps.
    pub(super) fn new(ranges: Vec<(T, T)>) -> Self {
        let nets: Vec<(T, T)> =
            merged(ranges).into_iter().flat_map(|(first, last)| cover(first, last)).collect();
        let (Some((first, _)), Some((_, last))) = (nets.first(), nets.last()) else { return Self::default() };
        // Half full at most: of networks that are strewn at random, one bucket in fifty is crowded with 8 places, one in 270 with 16.
        let wanted = T::of(nets.len() * 2 / PLACES);
        let enough = |low: &u32| last.shifted(*low).distance(first.shifted(*low)) >= wanted;
        // One bit less than the words of a key hold: the topmost one is left to `NONE`.
        let most = (1..WORDS).fold(BITS - 1, |most, _| most + BITS).min(T::WIDTH - 1);
        let low = (0..=most).rev().find(enough).unwrap_or(0);
        Self { low, first: first.shifted(low), ..Self::default() }.filled(&nets)
    }

    fn filled(mut self, mut rest: &[(T, T)]) -> Self {
        let (mut lines, mut crowds, mut bucket) = (Vec::new(), Vec::new(), self.first);
        while !rest.is_empty() {
            let here = rest.iter().take_while(|(first, _)| first.shifted(self.low) <= bucket).count();
            let here = rest.get(..here).unwrap_or_default();
            if here.len() <= PLACES {
                lines.push(Line::of(here, self.low));
            } else {
                lines.push(Line::crowded(crowds.len(), here.len()));
                crowds.extend_from_slice(here);
            }
            let gone = here.iter().take_while(|(_, last)| last.shifted(self.low) <= bucket).count();
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

    /// Whether one of them holds an address. Nothing is jumped over here but a crowd: a jump that was guessed wrong costs more
    /// than the rest.
    #[inline]
    pub(super) fn holds(&self, address: T) -> bool {
        let bucket = address.shifted(self.low).distance(self.first).count();
        let Some(line) = self.lines.get(bucket) else { return false };
        if line.is_crowded() { self.crowd_holds(line, address) } else { line.holds(address.lowest(self.low)) }
    }

    #[cold]
    fn crowd_holds(&self, line: &Line<WORDS, PLACES>, address: T) -> bool {
        holds(self.crowd(line), address)
    }

    fn crowd(&self, line: &Line<WORDS, PLACES>) -> &[(T, T)] {
        let [Some(from), Some(count)] = [1, 2].map(|place| line.word(0, place)) else { return &[] };
        self.crowds.get(from as usize..).and_then(|rest| rest.get(..count as usize)).unwrap_or_default()
    }

    /// The addresses as ranges, first and last of each, in order; none of them touch.
    pub(super) fn ranges(&self) -> Vec<(T, T)> {
        let (mut ranges, mut bucket) = (Vec::new(), self.first);
        for line in &self.lines {
            if line.is_crowded() {
                ranges.extend_from_slice(self.crowd(line));
            } else {
                ranges.extend(line.ranges(bucket.raised(self.low)));
            }
            bucket = bucket.next().unwrap_or(bucket);
        }
        merged(ranges)
    }
}

impl<const WORDS: usize, const PLACES: usize> Line<WORDS, PLACES> {
    /// Of networks, no more than there are places, each of them cut to the bucket.
    fn of<T: Address>(nets: &[(T, T)], low: u32) -> Self {
        let key = |at: usize, place: usize| {
            let Some((first, last)) = nets.get(place) else { return NONE };
            let host = first.host(*last).lowest(low).word::<WORDS>(at);
            first.lowest(low).word::<WORDS>(at) << 1 & !host | (host + 1)
        };
        Self(std::array::from_fn(|at| std::array::from_fn(|place| key(at, place))))
    }

    fn crowded(from: usize, count: usize) -> Self {
        let word = |place| match place {
            0 => CROWDED,
            1 => u32::try_from(from).unwrap_or(u32::MAX),
            _ => u32::try_from(count).unwrap_or(u32::MAX),
        };
        Self([std::array::from_fn(word); WORDS])
    }

    #[inline]
    fn is_crowded(&self) -> bool {
        self.word(0, 0) == Some(CROWDED)
    }

    #[inline]
    fn word(&self, at: usize, place: usize) -> Option<u32> {
        self.0.get(at)?.get(place).copied()
    }

    #[inline]
    fn holds<T: Address>(&self, address: T) -> bool {
        let mut others = [0; PLACES];
        for (at, keys) in self.0.iter().enumerate() {
            let word = address.word::<WORDS>(at) << 1 | 1;
            for (key, other) in keys.iter().zip(&mut others) {
                *other |= (key ^ word) & !about(*key);
            }
        }
        // No jump: `contains` would stop at the first.
        others.iter().fold(0, |held, other| held | u32::from(*other == 0)) != 0
    }

    /// The networks as ranges; `bucket` is the first address of the bucket.
    fn ranges<T: Address>(&self, bucket: T) -> impl Iterator<Item = (T, T)> {
        let range = move |place: usize| {
            let (mut first, mut last) = (bucket, bucket);
            for at in 0..WORDS {
                let key = self.word(at, place).filter(|key| at > 0 || *key != NONE)?;
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
    /// The lower bits alone.
    fn lowest(self, low: u32) -> Self;
    /// Those of the bits in which the first and the last address of a network differ.
    fn host(self, last: Self) -> Self;
    /// The last address of the largest network that begins here and does not reach beyond `last`.
    fn widest(self, last: Self) -> Self;
    /// 31 bits, those of the last word the lowest.
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
            #[inline]
            fn lowest(self, low: u32) -> Self {
                self & !Self::MAX.wrapping_shl(low)
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
                let bits = self.wrapping_shr(place::<WORDS>(at)) & 0x7fff_ffff;
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
