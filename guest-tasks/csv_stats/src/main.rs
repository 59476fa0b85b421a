//! Statistics of the numeric columns of a CSV file: an ordinary WASI command,
//! which knows nothing of wasmpool.
//!
//! Reads standard input, writes a table separated by tabs to standard output.
//! Exit codes: 0 done, 1 bad data, 2 bad usage.

mod column;

use std::fmt;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use column::Column;

const USAGE: &str = "usage: csv_stats [--column NAME]... < FILE.csv

Prints count, minimum, maximum, mean and standard deviation of each column
whose cells are numbers or empty. With --column, of the named columns only,
and a cell that is no number is an error.";

fn main() -> ExitCode {
    let done = parse(std::env::args().skip(1)).and_then(|request| match request {
        Request::Help => Ok(writeln!(io::stdout(), "{USAGE}")?),
        Request::Columns(names) => run(&names, io::stdin().lock(), io::stdout().lock()),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("csv_stats: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

#[derive(Debug, PartialEq)]
enum Request {
    Help,
    /// No names: all columns that are numeric.
    Columns(Vec<String>),
}

#[derive(Debug)]
enum Failure {
    Usage(String),
    Data(String),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Data(_) => 1,
            Self::Usage(_) => 2,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(message) => f.write_str(message),
            Self::Usage(message) => write!(f, "{message}\n{USAGE}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Data(error.to_string())
    }
}

impl From<csv::Error> for Failure {
    fn from(error: csv::Error) -> Self {
        Self::Data(error.to_string())
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Request, Failure> {
    let mut names = Vec::new();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--help" | "-h" => return Ok(Request::Help),
            "--column" => match arguments.next() {
                Some(name) => names.push(name),
                None => return Err(Failure::Usage("--column needs a name".into())),
            },
            other => return Err(Failure::Usage(format!("unknown argument '{other}'"))),
        }
    }
    Ok(Request::Columns(names))
}

fn run(names: &[String], input: impl Read, mut output: impl Write) -> Result<(), Failure> {
    let mut reader = csv::Reader::from_reader(input);
    let mut columns: Vec<Column> = reader.headers()?.iter().map(Column::new).collect();
    for name in names {
        if !columns.iter().any(|column| column.name == *name) {
            return Err(Failure::Data(format!("there is no column '{name}'")));
        }
    }
    let asked_for = |column: &Column| names.contains(&column.name);

    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record)? {
        let line = record.position().map_or(0, csv::Position::line);
        for (column, cell) in columns.iter_mut().zip(&record) {
            if !column.add(cell) && asked_for(column) {
                return Err(Failure::Data(format!(
                    "line {line}, column '{}': '{cell}' is not a number",
                    column.name
                )));
            }
        }
    }

    let chosen: Vec<&Column> = columns
        .iter()
        .filter(|column| if names.is_empty() { column.is_numeric() } else { asked_for(column) })
        .collect();
    if chosen.is_empty() {
        return Err(Failure::Data("there is no column of numbers".into()));
    }
    writeln!(output, "column\tcount\tmin\tmax\tmean\tstddev")?;
    for column in chosen {
        writeln!(output, "{column}")?;
    }
    Ok(output.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEOPLE: &str = "name,age,height\nAda,36,1.65\nAlan,41,\n\"Grace, H.\",85,1.70\n";

    fn stats(names: &[&str], input: &str) -> Result<String, Failure> {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut output = Vec::new();
        run(&names, input.as_bytes(), &mut output)?;
        Ok(String::from_utf8(output).unwrap())
    }

    #[test]
    fn numeric_columns_are_summed_up_and_others_left_out() {
        assert_eq!(
            stats(&[], PEOPLE).unwrap(),
            "column\tcount\tmin\tmax\tmean\tstddev\n\
             age\t3\t36\t85\t54\t26.962938\n\
             height\t2\t1.65\t1.7\t1.675\t0.035355\n"
        );
    }

    #[test]
    fn a_named_column_is_the_only_one() {
        let table = stats(&["height"], PEOPLE).unwrap();
        assert_eq!(table.lines().count(), 2);
        assert!(table.contains("height"));
    }

    #[test]
    fn bad_data_is_named_with_its_line() {
        let failure = stats(&["name"], PEOPLE).unwrap_err();
        assert_eq!(failure.code(), 1);
        assert_eq!(failure.to_string(), "line 2, column 'name': 'Ada' is not a number");
        for input in ["a,b\n1,2,3\n", "a\nx\n", ""] {
            assert_eq!(stats(&[], input).unwrap_err().code(), 1, "{input:?}");
        }
        assert_eq!(stats(&["weight"], PEOPLE).unwrap_err().code(), 1);
    }

    #[test]
    fn bad_usage_is_told_apart() {
        let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        for line in ["--column", "--rows 3", "file.csv"] {
            let failure = parse(words(line).into_iter()).unwrap_err();
            assert_eq!(failure.code(), 2);
        }
        assert_eq!(
            parse(words("--column a --column b").into_iter()).unwrap(),
            Request::Columns(words("a b"))
        );
    }
}
