//! A queue with a limit that loses what is oldest, and says how much was lost to whoever is next.

use super::super::carry::Carry;
use std::collections::VecDeque;

/// The queue.
#[derive(Debug)]
pub struct Lossy<T> {
    all: VecDeque<T>,
    limit: usize,
    /// So many were lost since the last that was taken.
    missed: u64,
}

impl<T: Carry> Carry for Lossy<T> {
    type As = (Vec<T::As>, usize, u64);
    fn written(&self) -> Self::As {
        (self.all.written(), self.limit, self.missed)
    }
    fn taken((all, limit, missed): Self::As) -> Result<Self, String> {
        let all = VecDeque::taken(all)?;
        Ok(Lossy { all, limit, missed })
    }
}

impl<T> Lossy<T> {
    /// For so many.
    pub fn new(limit: usize) -> Lossy<T> {
        Lossy {
            all: VecDeque::new(),
            limit: limit.max(1),
            missed: 0,
        }
    }

    /// One more. True: another one is lost for it.
    pub fn push(&mut self, one: T) -> bool {
        let full = self.all.len() >= self.limit;
        if full {
            self.all.pop_front();
            self.missed += 1;
        }
        self.all.push_back(one);
        full
    }

    /// The oldest, and how many were lost before it.
    pub fn pop(&mut self) -> Option<(T, u64)> {
        let one = self.all.pop_front()?;
        // An empty queue needs no room.
        if self.all.is_empty() {
            self.all = VecDeque::new();
        }
        Some((one, std::mem::take(&mut self.missed)))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Nobody will take them: how many are lost now, with those that were.
    pub fn clear(&mut self) -> u64 {
        let left = std::mem::take(&mut self.all).len() as u64;
        left + std::mem::take(&mut self.missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_oldest_is_lost_and_the_next_is_told_how_much() {
        let mut q = Lossy::new(3);
        let lost: Vec<bool> = (0..6).map(|n| q.push(n)).collect();
        assert_eq!(lost, [false, false, false, true, true, true]);
        assert_eq!(q.len(), 3);
        assert_eq!(q.pop(), Some((3, 3)));
        assert_eq!(q.pop(), Some((4, 0)));
        q.push(6);
        q.push(7);
        assert!(q.push(8));
        assert_eq!(q.clear(), 4);
        assert_eq!((q.pop(), q.clear()), (None, 0));
    }
}
