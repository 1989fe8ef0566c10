-- /v1/ocr: for every page that is asked for, or one, a page that names the document.
WITH
  read AS (
    SELECT
      custom_id,
      json_transform(body, '{
        "model": "VARCHAR", "pages": "JSON", "include_image_base64": "BOOLEAN", "extract_header": "BOOLEAN",
        "extract_footer": "BOOLEAN", "include_blocks": "BOOLEAN", "confidence_scores_granularity": "VARCHAR",
        "document": {"document_url": "VARCHAR", "image_url": "JSON", "file_id": "VARCHAR"},
        "document_annotation_format": {"json_schema": {"schema": "JSON"}},
        "bbox_annotation_format": {"json_schema": {"schema": "JSON"}}
      }') AS request
    FROM requests
  ),
  documents AS (
    SELECT
      *,
      coalesce(
        request.document.document_url,
        request.document.image_url->>'$.url',
        request.document.image_url->>'$',
        request.document.file_id
      ) AS text,
      'echo: ' || text AS markdown,
      CASE json_type(request.pages)
        WHEN 'ARRAY' THEN TRY_CAST(request.pages AS BIGINT[])
        WHEN 'VARCHAR' THEN page_numbers(request.pages->>'$')
        ELSE [0]
      END AS numbers
    FROM read
  ),
  annotated AS (
    SELECT
      documents.*,
      of_document.example AS document_annotation,
      CASE
        WHEN request.include_image_base64 OR of_image.example IS NOT NULL THEN [{
          'id': 'img-0.gif',
          'top_left_x': 0,
          'top_left_y': 0,
          'bottom_right_x': 1,
          'bottom_right_y': 1,
          'image_base64': CASE
            WHEN request.include_image_base64 THEN 'data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw=='
          END,
          'image_annotation': of_image.example
        }]
        ELSE []
      END AS images
    FROM documents
    LEFT JOIN formats of_document
      ON request.document_annotation_format.json_schema.schema::VARCHAR = of_document.schema
    LEFT JOIN formats of_image ON request.bbox_annotation_format.json_schema.schema::VARCHAR = of_image.schema
  )
SELECT
  custom_id,
  text,
  CASE WHEN text IS NULL THEN 'document' WHEN numbers IS NULL THEN 'pages' END AS wrong,
  to_json({
    'model': coalesce(request.model, $model),
    'pages': list_transform(numbers, lambda number: {
      'index': number,
      'markdown': markdown,
      'images': images,
      'dimensions': {'dpi': 200, 'height': 2200, 'width': 1700},
      'header': CASE WHEN request.extract_header THEN 'header' END,
      'footer': CASE WHEN request.extract_footer THEN 'footer' END,
      'confidence_scores': CASE
        WHEN request.confidence_scores_granularity IS NOT NULL THEN {
          'word_confidence_scores': CASE
            WHEN request.confidence_scores_granularity = 'word' THEN list_transform(
              string_split(markdown, ' '),
              lambda word: {'text': word, 'confidence': 0.9, 'start_index': strpos(markdown, word) - 1}
            )
            ELSE []
          END,
          'average_page_confidence_score': 0.9,
          'minimum_page_confidence_score': 0.9
        }
      END,
      'blocks': CASE
        WHEN request.include_blocks THEN [{
          'type': 'text',
          'top_left_x': 0,
          'top_left_y': 0,
          'bottom_right_x': 1700,
          'bottom_right_y': 2200,
          'content': markdown
        }]
      END
    }),
    'document_annotation': document_annotation,
    'usage_info': {'pages_processed': len(numbers), 'doc_size_bytes': NULL::BIGINT}
  }) AS answer
FROM annotated
