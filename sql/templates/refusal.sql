-- What cannot be done has the columns that it would have had, so that the caller reads the sentence and not a
-- complaint about a column.
SELECT $columns WHERE error($message)::BOOLEAN
