SELECT unnest(CASE WHEN struct_extract(answer, 'error') IS NULL
  THEN struct_extract(answer, 'rows') ELSE error(struct_extract(answer, 'error'))
END, recursive := true)
