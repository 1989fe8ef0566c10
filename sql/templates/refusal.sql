-- What cannot be done has the columns that it would have had, so that the caller reads the sentence and not a
-- complaint about a column. The error stands inside unnest: where the columns are plain NULLs, the optimizer sees that
-- a join or a WHERE lets none through, and leaves the error out.
SELECT unnest(CASE WHEN error($message) IS NULL THEN list_value(struct_pack($columns)) END, max_depth := 2)
