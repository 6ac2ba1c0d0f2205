//! Dates for templates: Python's `strftime` over a clock that the caller passes in. No time zones beyond an offset. Own
//! code: a library of dates, which the page's module would carry too, is larger than the one thing that is asked of it here.

use std::fmt::Write;

/// A moment, as the caller's clock shows it. The default is the first second of 1970, UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub unix_seconds: i64,
    /// What local time is ahead of UTC, in seconds.
    pub utc_offset: i32,
}

const DAYS: &str = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday";
const MONTHS: &str = "January February March April May June July August September October November December";

/// The longest format that is worth reading; a longer one is cut.
const MAX_FORMAT: usize = 1024;

/// A calendar date and time of day.
struct Fields {
    /// Since 1970-01-01.
    days: i64,
    year: i64,
    /// 1 to 12.
    month: i64,
    /// 1 to 31.
    day: i64,
    /// 0 is Sunday.
    weekday: i64,
    /// 1 to 366.
    yearday: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Fields {
    fn new(now: Now) -> Fields {
        // Year 9999 is where Python's calendar ends as well.
        let local = now.unix_seconds.clamp(-62_135_596_800, 253_402_300_799) + i64::from(now.utc_offset);
        Fields::of(local.div_euclid(86_400), local.rem_euclid(86_400))
    }

    /// Civil date from a day count (Howard Hinnant, "chrono-compatible low-level date algorithms").
    fn of(days: i64, seconds: i64) -> Fields {
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_index = (5 * day_of_year + 2) / 153;
        let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let before = year - 1;
        let new_year = 365 * before + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400) - 719_162;
        Fields {
            days,
            year,
            month,
            day: day_of_year - (153 * month_index + 2) / 5 + 1,
            weekday: (days + 4).rem_euclid(7),
            yearday: days - new_year + 1,
            hour: seconds / 3600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }

    /// Year and week after ISO 8601: those of the week's Thursday.
    fn iso_week(&self) -> (i64, i64) {
        let thursday = Fields::of(self.days + 3 - (self.weekday + 6) % 7, 0);
        (thursday.year, (thursday.yearday - 1) / 7 + 1)
    }
}

/// `now` by Python's format codes in the C locale; an unknown code is kept as it is written.
pub(super) fn strftime(format: &str, now: Now) -> String {
    let f = Fields::new(now);
    let mut out = String::new();
    let mut chars = format.chars().take(MAX_FORMAT);
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let code = chars.next();
        match code {
            Some('-') => match chars.next() {
                Some(code) => {
                    let mut text = String::new();
                    put(&mut text, code, &f, now);
                    let cut = text.trim_start_matches(['0', ' ']);
                    out.push_str(if cut.is_empty() { "0" } else { cut });
                }
                None => out.push_str("%-"),
            },
            Some(code) => put(&mut out, code, &f, now),
            None => out.push('%'),
        }
    }
    out
}

/// Writes one code's text.
fn put(out: &mut String, code: char, f: &Fields, now: Now) {
    let hour12 = (f.hour + 11) % 12 + 1;
    let half = if f.hour < 12 { "AM" } else { "PM" };
    let name = |of: &'static str, at: i64| of.split(' ').nth(at as usize).unwrap_or_default();
    let (day_name, month_name) = (name(DAYS, f.weekday), name(MONTHS, f.month - 1));
    let (sign, offset) = (if now.utc_offset < 0 { '-' } else { '+' }, now.utc_offset.unsigned_abs());
    // Writing to a string cannot fail.
    let _ = match code {
        'Y' => write!(out, "{}", f.year),
        'G' => write!(out, "{}", f.iso_week().0),
        'y' => write!(out, "{:02}", f.year.rem_euclid(100)),
        'C' => write!(out, "{:02}", f.year.div_euclid(100)),
        'm' => write!(out, "{:02}", f.month),
        'd' => write!(out, "{:02}", f.day),
        'e' => write!(out, "{:2}", f.day),
        'j' => write!(out, "{:03}", f.yearday),
        'H' => write!(out, "{:02}", f.hour),
        'k' => write!(out, "{:2}", f.hour),
        'I' => write!(out, "{hour12:02}"),
        'l' => write!(out, "{hour12:2}"),
        'M' => write!(out, "{:02}", f.minute),
        'S' => write!(out, "{:02}", f.second),
        'f' => write!(out, "000000"),
        'p' => write!(out, "{half}"),
        'a' => write!(out, "{}", &day_name[..3]),
        'A' => write!(out, "{day_name}"),
        'b' | 'h' => write!(out, "{}", &month_name[..3]),
        'B' => write!(out, "{month_name}"),
        'u' => write!(out, "{}", (f.weekday + 6) % 7 + 1),
        'w' => write!(out, "{}", f.weekday),
        'U' => write!(out, "{:02}", (f.yearday - 1 + 7 - f.weekday) / 7),
        'W' => write!(out, "{:02}", (f.yearday - 1 + 7 - (f.weekday + 6) % 7) / 7),
        'V' => write!(out, "{:02}", f.iso_week().1),
        's' => write!(out, "{}", now.unix_seconds),
        'z' => write!(out, "{sign}{:02}{:02}", offset / 3600, offset / 60 % 60),
        'Z' if offset == 0 => write!(out, "UTC"),
        'Z' => write!(out, "UTC{sign}{:02}:{:02}", offset / 3600, offset / 60 % 60),
        'D' | 'x' => write!(out, "{}", strftime("%m/%d/%y", now)),
        'F' => write!(out, "{}", strftime("%Y-%m-%d", now)),
        'R' => write!(out, "{}", strftime("%H:%M", now)),
        'T' | 'X' => write!(out, "{}", strftime("%H:%M:%S", now)),
        'r' => write!(out, "{}", strftime("%I:%M:%S %p", now)),
        'c' => write!(out, "{}", strftime("%a %b %e %H:%M:%S %Y", now)),
        'n' => writeln!(out),
        't' => write!(out, "\t"),
        '%' => write!(out, "%"),
        other => write!(out, "%{other}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_pythons() {
        // Each line by Python: datetime.fromtimestamp(seconds, tz).strftime(format).
        let cases = [
            (0, 0, "%Y-%m-%d %H:%M:%S %j %a %u %w", "1970-01-01 00:00:00 001 Thu 4 4"),
            (1_709_210_096, 0, "%d %b %Y %A %B %j %U %W %V", "29 Feb 2024 Thursday February 060 08 09 09"),
            (1_735_603_200, 0, "%G-%V %Y-%U-%W %-d %-m", "2025-01 2024-52-53 31 12"),
            (
                1_700_000_000,
                19_800,
                "%I:%M %p %z %D %T %c",
                "03:43 AM +0530 11/15/23 03:43:20 Wed Nov 15 03:43:20 2023",
            ),
            (-1, 0, "%Y %y %% %Q", "1969 69 % %Q"),
        ];
        for (unix_seconds, utc_offset, format, want) in cases {
            assert_eq!(strftime(format, Now { unix_seconds, utc_offset }), want, "{format}");
        }
        strftime("%c", Now { unix_seconds: i64::MIN, utc_offset: i32::MIN });
        strftime("%c", Now { unix_seconds: i64::MAX, utc_offset: i32::MAX });
    }
}
