//! Cycles in which each waits for what the next one holds: one of them must give way, and only one.

use crate::harness::Harness;
use crate::oracle::unique_key;
use crate::parties::{FORMS, Form, Party, assert_one_victim, exclusive, party, play, shared};

/// Each holds a key, and wants the next one's.
fn cycle(forms: &[Form]) -> Vec<Party> {
    let keys: Vec<_> = forms.iter().map(|_| unique_key()).collect();
    let next = keys.iter().cycle().skip(1);
    let claims = keys.iter().map(exclusive).zip(next.map(exclusive));
    let parties = forms.iter().zip(claims);
    parties
        .map(|(form, (holds, wants))| party(*form, Some(holds), wants))
        .collect()
}

fn plays<H: Harness + 'static>(parties: &[Party]) {
    let ends = play::<H>(parties);
    assert_one_victim(parties, &ends);
}

fn of_two<H: Harness + 'static>(first: Form) {
    std::thread::scope(|threads| {
        for second in FORMS {
            threads.spawn(move || plays::<H>(&cycle(&[first, second])));
        }
    });
}

pub fn two_of_which_one_is_a_section<H: Harness + 'static>() {
    of_two::<H>(Form::Section);
}

pub fn two_of_which_one_wants_several<H: Harness + 'static>() {
    of_two::<H>(Form::Several);
}

pub fn two_of_which_one_is_in_its_callers_transaction<H: Harness + 'static>() {
    of_two::<H>(Form::CallersTransaction);
}

pub fn two_of_which_one_begins_a_transaction<H: Harness + 'static>() {
    of_two::<H>(Form::OwnTransaction);
}

pub fn two_of_which_one_sends_a_message<H: Harness + 'static>() {
    of_two::<H>(Form::Message);
}

pub fn three<H: Harness + 'static>() {
    std::thread::scope(|threads| {
        for form in FORMS {
            threads.spawn(move || plays::<H>(&cycle(&[form; 3])));
        }
        threads.spawn(|| plays::<H>(&cycle(&[Form::Section, Form::OwnTransaction, Form::Plain])));
        threads.spawn(|| {
            plays::<H>(&cycle(&[
                Form::Message,
                Form::Section,
                Form::CallersTransaction,
            ]));
        });
    });
}

/// As many as in the server's own test.
pub fn eight<H: Harness + 'static>() {
    plays::<H>(&cycle(&[Form::Section; 8]));
}

/// Both share a key, and both want it for themselves.
pub fn two_upgrades<H: Harness + 'static>() {
    std::thread::scope(|threads| {
        for forms in [
            [Form::Section, Form::Section],
            [Form::Section, Form::Plain],
            [Form::CallersTransaction, Form::CallersTransaction],
            [Form::CallersTransaction, Form::Section],
        ] {
            threads.spawn(move || {
                let key = unique_key();
                let upgrades = forms.map(|form| party(form, Some(shared(&key)), exclusive(&key)));
                plays::<H>(&upgrades);
            });
        }
    });
}
