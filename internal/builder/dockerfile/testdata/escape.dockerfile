# escape=`
FROM alpine
ENV A=C:\dir B=`$A C="x`"y" `
    D=1
RUN echo a\b `
  # a comment within

  && echo c
